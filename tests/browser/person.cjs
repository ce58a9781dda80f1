// A person at a real browser: opens a question, decides, and tells what each page said, as JSON.
//
//   node person.cjs CHROMIUM FOLDER QUESTION approve|deny|stray
//
// `stray` comes back with another login's answer before it approves. Pictures of the pages stay in the
// folder.
"use strict";
const path = require("node:path");
const puppeteer = require("puppeteer-core");

const [chromium, folder, question, decision] = process.argv.slice(2);

async function main() {
  const browser = await puppeteer.launch({
    executablePath: chromium,
    headless: "shell",
    userDataDir: path.join(folder, "profile"),
    // A container has no namespaces for its sandbox, and little shared memory.
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"],
  });
  const pages = [];
  try {
    const page = await browser.newPage();
    await page.setViewport({ width: 760, height: 560, deviceScaleFactor: 2 });
    const problems = [];
    page.on("console", (said) => problems.push(said.text()));
    page.on("pageerror", (error) => problems.push(String(error)));
    const look = async (name, response) => {
      await page.screenshot({ path: path.join(folder, `${name}.png`) });
      const text = await page.evaluate(() => document.body.innerText);
      const colour = await page.evaluate(() => getComputedStyle(document.querySelector("main")).borderRadius);
      const status = response.status();
      // An icon that is not there is said on the console, too.
      const said = problems.splice(0).filter((text) => !/404|400/.test(text));
      pages.push({ name, status, text, styled: colour === "10px", problems: said });
    };
    if (decision === "stray") {
      const back = new URL(new URL(question).searchParams.get("redirect_uri"));
      back.search = "?code=another&state=another";
      await look("stray", await page.goto(back.href));
    }
    await look("question", await page.goto(question));
    const button = decision === "deny" ? "deny" : "approve";
    const [response] = await Promise.all([
      page.waitForNavigation(),
      page.click(`button[value=${button}]`),
    ]);
    await look(button, response);
  } finally {
    await browser.close();
  }
  process.stdout.write(JSON.stringify(pages));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
