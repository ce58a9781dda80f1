//! Somebody logs in: the command at its terminal, and a person who answers on the page.

use reqwest::Url;
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;

use super::Process;
use super::tools::client;

/// A running `login`, without a browser.
pub(crate) struct Login {
    process: Process,
    input: Option<ChildStdin>,
    /// Whether it was told something at a terminal.
    pastes: bool,
    /// What the person opens.
    pub(crate) url: Url,
}

impl Login {
    /// Starts it, and waits for the address that it prints.
    pub(crate) async fn start(config: &str, name: &str) -> Self {
        Self::start_with(config, &[name], &[]).await
    }

    /// As [`Self::start`], with more on the command line and in the environment.
    pub(crate) async fn start_with(config: &str, args: &[&str], env: &[(String, String)]) -> Self {
        let args: Vec<&str> =
            ["--config", config, "login", "--no-browser"].iter().chain(args).copied().collect();
        Self::of(Process::sidecar_told(&args, env)).await
    }

    /// As [`Self::start`], at a terminal of its own (`script`), where a browser cannot be opened.
    pub(crate) async fn at_a_terminal(config: &str, name: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_datapulse-sidecar");
        let line = format!("PATH=/nowhere exec {program} --config {config} login {name}");
        let mut script = tokio::process::Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        Self::of(Process::told(script)).await
    }

    async fn of((process, input): (Process, ChildStdin)) -> Self {
        let lines = process.stdout.clone();
        let printed = async { lines.line(|line| line.contains("http")).await };
        let line = printed.await;
        let url = line.trim().parse().expect("an address");
        Self { process, input: Some(input), pastes: false, url }
    }

    /// Writes a line to its standard input.
    pub(crate) async fn paste(&mut self, line: &str) {
        self.pastes = true;
        let input = self.input.as_mut().expect("it is open");
        input.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    }

    /// There is no more input.
    pub(crate) fn end_of_input(&mut self) {
        self.input = None;
    }

    /// Waits for a line on standard error.
    pub(crate) async fn says(&self, text: &str) {
        self.process.stderr.line(|line| line.contains(text)).await;
    }

    pub(crate) async fn signal(&self, name: &str) {
        self.process.signal(name).await;
    }

    /// Its exit code, and all that it printed, in which no token and no code may be.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String) {
        let code = self.process.ended().await.code();
        let (out, said) = (self.process.stdout.lines(), self.process.stderr.lines());
        let text = format!("{}\n{}", out.join("\n"), said.join("\n"));
        for secret in ["dp_rt_", "dp_at_", "dp_ac_", super::CANARY] {
            // A terminal repeats what is pasted, and that alone.
            let is_repeated = |line: &&str| line.contains("code=dp_ac_") && self.pastes;
            let line = text.lines().find(|line| line.contains(secret) && !is_repeated(line));
            assert!(line.is_none(), "{secret} is in\n{text}");
        }
        (code, text)
    }
}

/// What a person decides on the emulator's page; where the browser is sent for that.
pub(crate) async fn person(question: &Url, decision: &str) -> Url {
    let browser = client(Vec::new());
    let page = browser.get(question.clone()).send().await.expect("a page");
    let page = page.text().await.expect("text");
    let (_, rest) = page.split_once("name=\"request\" value=\"").expect("a question");
    let request = rest.split('"').next().expect("its name");
    let form = [("request", request), ("decision", decision)];
    let to = question.join("/oauth/authorize").expect("an address");
    let browser = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let browser = browser.tls_certs_only([]).build().expect("a client");
    let answer = browser.post(to).form(&form).send().await.expect("an answer");
    let to = answer.headers().get("location").expect("the browser is sent on");
    to.to_str().expect("ASCII").parse().expect("an address")
}
