//! Promise: `exec -- PROGRAM` gives any program DataPulse with no code changed but the base URL, and
//! neither outlives the other.

use tokio::time::timeout;

use crate::support::{CANARY, PATIENCE, Process, Rig, Stage, tool};

fn exec(stage: &Stage, program: &[&str]) -> Process {
    exec_in(stage, program, &[])
}

fn exec_in(stage: &Stage, program: &[&str], env: &[(&str, &str)]) -> Process {
    let args = [&["--config", &stage.config, "exec", "--"], program].concat();
    let env: Vec<_> = env.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    Process::sidecar_in(&args, &env)
}

/// The code, standard output and standard error, none with a secret in it.
async fn outcome(mut process: Process) -> (Option<i32>, String, String) {
    let code = process.ended().await.code();
    let (out, said) = (process.stdout.lines().join("\n"), process.stderr.lines().join("\n"));
    assert!(!out.contains(CANARY) && !said.contains(CANARY), "a secret is in\n{out}\n{said}");
    (code, out, said)
}

fn node_binary() -> String {
    tool("bin/node").to_str().expect("UTF-8").to_owned()
}

#[tokio::test]
async fn programs_call_datapulse_with_no_code_changed_but_the_base_url() {
    let stage = Rig::builder().await.stage();
    let python = "import os, urllib.request\n\
        request = urllib.request.Request(os.environ['DATAPULSE_BASE_URL'] + '/v1/pipelines',\n\
        headers={'Authorization': 'Bearer ' + os.environ['DATAPULSE_API_KEY']})\n\
        print(urllib.request.urlopen(request).status)";
    let curl = "curl -sS -w '%{http_code}' -o /dev/null \"$DATAPULSE_BASE_URL/v1/datasets\"";
    let node = "fetch(process.env.DATAPULSE_BASE_URL + '/v1/reports',\n\
        {headers: {authorization: 'Bearer ' + process.env.DATAPULSE_API_KEY}})\n\
        .then(async answer => { await answer.text(); console.log(answer.status) })";
    let binary = node_binary();
    let node = [binary.as_str(), "-e", node];
    // Nothing listens on port 9: a call that went by the proxy would fail.
    let proxy = [("http_proxy", "http://127.0.0.1:9"), ("NO_PROXY", "example.com")];
    for program in [["bash", "-c", curl], ["python3", "-c", python], node] {
        let (code, out, said) = outcome(exec_in(&stage, &program, &proxy)).await;
        assert_eq!((code, out.as_str()), (Some(0), "200"), "{program:?}: {said}");
    }
    assert_eq!(stage.emulator.seen("/v1/datasets"), 1);
    assert_eq!(stage.emulator.seen("/v1/pipelines"), 1);
    assert_eq!(stage.emulator.seen("/v1/reports"), 1);
    assert_eq!(stage.emulator.anonymous(), 0);
}

#[tokio::test]
async fn the_exit_code_is_the_childs() {
    let stage = Rig::builder().await.stage();
    let config = stage.config.as_str();
    for (program, want, part) in [
        (&["bash", "-c", "exit 0"][..], 0, ""),
        (&["bash", "-c", "exit 7"], 7, ""),
        (&["bash", "-c", "kill -TERM $$"], 143, ""),
        (&["bash", "-c", "kill -KILL $$"], 137, ""),
        (&["/no/such/program"], 127, "cannot start /no/such/program: "),
        (&[config], 126, "cannot start "),
    ] {
        let (code, _, said) = outcome(exec(&stage, program)).await;
        assert_eq!(code, Some(want), "{program:?}: {said}");
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(outcome(exec(&stage, &[])).await.0, Some(2), "no program");
}

#[tokio::test]
async fn signals_reach_the_child_which_decides() {
    let stage = Rig::builder().await.stage();
    for signal in ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"] {
        let program = format!(
            "import signal, sys\n\
             signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIG{signal}])\n\
             print('ready', flush=True)\n\
             signal.sigwait([signal.SIG{signal}])\n\
             sys.exit(42)"
        );
        let process = exec(&stage, &["python3", "-c", &program]);
        process.stdout.line(|line| line == "ready").await;
        process.signal(signal).await;
        let (code, _, said) = outcome(process).await;
        assert_eq!(code, Some(42), "{signal}: {said}");
    }
}

#[tokio::test]
async fn a_sidecar_that_is_killed_takes_its_child_along() {
    let stage = Rig::builder().await.stage();
    let mut process = exec(&stage, &["bash", "-c", "echo ready; exec sleep 3600"]);
    process.stdout.line(|line| line == "ready").await;
    process.signal("KILL").await;
    // The child holds the other end of our pipe: its end is the end of the lines.
    timeout(PATIENCE, process.ended()).await.expect("both end");
}

#[tokio::test]
async fn the_child_gets_an_address_and_a_placeholder_and_no_secret() {
    let secret = format!("dp_live_{CANARY}_reader");
    let yaml = "credentials: [{name: reader, level: read_only, api_key: 'env:DATAPULSE_TEST_KEY'}]\n\
                health: {listen: '127.0.0.1:1'}\nadmin: {listen: '127.0.0.1:2'}\n";
    let stage = Rig::builder().await.config(yaml).stage();
    let program = ["bash", "-c", "env; curl -sS \"$DATAPULSE_BASE_URL/v1/datasets\" > /dev/null"];
    let process = exec_in(&stage, &program, &[("DATAPULSE_TEST_KEY", &secret)]);
    let (code, out, said) = outcome(process).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("DATAPULSE_BASE_URL=http://127.0.0.1:"), "{out}");
    assert!(out.contains("DATAPULSE_API_KEY=dp_live_placeholder"), "{out}");
    assert!(!out.contains("\"audit\"") && said.contains("\"audit\""), "{out}");
    assert_eq!(stage.emulator.seen("/v1/datasets"), 1);
}

/// One of each place that takes a reference, those that `exec` has no use for as well, and the keys
/// that open a whole store.
#[tokio::test]
async fn no_variable_that_the_configuration_calls_a_secret_reaches_the_child() {
    let yaml = "
        credentials:
        - {name: reader, level: read_only, api_key: 'env:OF_KEY', fallback: 'env:OF_FALLBACK'}
        - {name: etl, level: read_write, required: false,
           client_credentials: {client_id: etl, client_secret: 'env:OF_CLIENT'}}
        - {name: alice, level: read_write, required: false,
           refresh_token: {client_id: web, client_secret: 'env:OF_WEB', token: 'file:/no/token'}}
        listeners: [{listen: 'localhost:0', caller_token: 'env:OF_LISTENER'}]
        tenants:
        - {name: one, callers: [{caller_token: 'env:OF_TENANT'}], credentials: [reader, etl, alice]}
        admin: {token: 'env:OF_ADMIN'}
        stores:
          aws: {region: eu-west-1}
          vault: {address: 'http://127.0.0.1:9', auth: {method: token, token: 'env:OF_VAULT'}}
        webhooks:
          listen: 127.0.0.1:0
          endpoints: [{path: /hook, secrets: ['env:OF_HOOK'], forward_to: 'http://127.0.0.1:9/'}]
        ";
    let stage = Rig::builder().await.config(yaml).stage();
    let secret = format!("dp_live_{CANARY}_reader");
    let names = [
        "OF_KEY",
        "OF_FALLBACK",
        "OF_CLIENT",
        "OF_WEB",
        "OF_LISTENER",
        "OF_TENANT",
        "OF_ADMIN",
        "OF_VAULT",
        "OF_HOOK",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    ];
    let mut env: Vec<_> = names.iter().map(|&name| (name, &*secret)).collect();
    env.extend([("AWS_ACCESS_KEY_ID", "AKIDTEST"), ("AWS_PROFILE", "mine"), ("OF_APP", "its own")]);
    let process = exec_in(&stage, &["env"], &env);
    let (code, out, said) = outcome(process).await;
    assert_eq!(code, Some(0), "{said}");
    for name in names.iter().chain(&["AWS_ACCESS_KEY_ID"]) {
        assert!(!out.contains(&format!("{name}=")), "{name} in {out}");
    }
    assert!(out.contains("AWS_PROFILE=mine") && out.contains("OF_APP=its own"), "{out}");
}

#[tokio::test]
async fn the_child_starts_when_the_credentials_are_there_or_the_wait_is_over() {
    let builder = Rig::builder().await.without_authorization_server();
    let stage = builder.config("startup_timeout: 1s\n").stage();
    let curl = "curl -sS -w '%{http_code}' -o /dev/null \"$DATAPULSE_BASE_URL/v1/datasets\"";
    let (code, out, said) = outcome(exec(&stage, &["bash", "-c", curl])).await;
    assert_eq!((code, out.as_str()), (Some(0), "200"), "{said}");
    assert!(said.contains("started without a required credential"), "{said}");

    let builder = Rig::builder().await.without_authorization_server();
    let stage = builder.config("startup_timeout: 10m\n").stage();
    let process = exec(&stage, &["bash", "-c", "echo started"]);
    process.stderr.line(|line| line.contains("token endpoint")).await;
    process.signal("TERM").await;
    let (code, out, _) = outcome(process).await;
    assert_eq!((code, out.as_str()), (Some(143), ""));
}

#[tokio::test]
async fn a_call_that_the_child_leaves_behind_is_answered() {
    let stage = Rig::builder().await.config("drain: {max: 20s}\n").stage();
    stage.emulator.delay_api(std::time::Duration::from_secs(2));
    let (go, out) = (stage.dir.path().join("go"), stage.dir.path().join("out"));
    let program = format!(
        "curl -sS -w '%{{http_code}}' -o /dev/null \"$DATAPULSE_BASE_URL/v1/datasets\" > {} &\n\
         until [ -e {} ]; do sleep 0.05; done; exit 3",
        out.display(),
        go.display()
    );
    let process = exec(&stage, &["bash", "-c", &program]);
    stage.emulator.in_flight(1).await;
    std::fs::write(go, "").unwrap();
    let (code, _, said) = outcome(process).await;
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(std::fs::read_to_string(out).unwrap(), "200", "{said}");
}

/// What a terminal shows, and how what runs in it ends, when Ctrl-C is pressed once it says `ready`.
async fn interrupted(stage: &Stage, program: &[&str]) -> (Option<i32>, String) {
    let terminal = "import os, pty, sys\n\
        pid, screen = pty.fork()\n\
        if pid == 0: os.execv(sys.argv[1], sys.argv[1:])\n\
        seen = b''\n\
        while b'ready' not in seen: seen += os.read(screen, 1000)\n\
        os.write(screen, b'\\x03')\n\
        piece = b'.'\n\
        while piece:\n\
        \x20   try: piece = os.read(screen, 1000)\n\
        \x20   except OSError: piece = b''\n\
        \x20   seen += piece\n\
        print(seen.decode())\n\
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
    let sidecar = env!("CARGO_BIN_EXE_datapulse-sidecar");
    let mut command = tokio::process::Command::new("python3");
    command.args(["-c", terminal, sidecar, "--config", &stage.config, "exec", "--"]);
    command.args(program);
    let (code, out, said) = outcome(Process::start(command)).await;
    (code, out + &said)
}

/// A terminal sends Ctrl-C to the child itself; passed on as well, it would come twice, and cut short
/// what the child does about the first.
#[tokio::test]
async fn ctrl_c_in_a_terminal_reaches_the_child_once() {
    let stage = Rig::builder().await.log_level("error").stage();
    let child = "import signal\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n\
        print('ready', flush=True)\n\
        signal.sigwait([signal.SIGINT])\n\
        print('again' if signal.sigtimedwait([signal.SIGINT], 1) else 'once', flush=True)";
    let (code, out) = interrupted(&stage, &["python3", "-c", child]).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("once"), "{out}");
}

#[tokio::test]
async fn ctrl_c_ends_a_program_that_does_nothing_about_it_and_the_sidecar() {
    let stage = Rig::builder().await.log_level("error").stage();
    let python = "import time; print('ready', flush=True); time.sleep(3600)";
    let node = "console.log('ready'); setTimeout(() => {}, 3600e3)";
    for program in [
        ["python3", "-c", python],
        [&node_binary(), "-e", node],
        ["bash", "-c", "echo ready; sleep 3600"],
    ] {
        let (code, out) = interrupted(&stage, &program).await;
        assert_eq!(code, Some(130), "{program:?}: {out}");
    }
}
