// Opens pages in a browser, one after the other, and writes what they became as JSON, a line each.
// Called as: node browse.js PROGRAM, with lines { address, until, shot, type } on standard input: `until` is a selector
// to wait for, `type` is what to put into fields first, by their labels, and `shot` a file for a picture.
"use strict";
const { createInterface } = require("node:readline");
const puppeteer = require("puppeteer-core");

(async () => {
  const browser = await puppeteer.launch({
    executablePath: process.argv[2],
    args: ["--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--hide-scrollbars"],
    protocolTimeout: 600_000,
  });
  for await (const line of createInterface({ input: process.stdin })) {
    const { address, until, type = {}, shot, size = [1100, 760] } = JSON.parse(line);
    const page = await browser.newPage();
    const errors = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    const answer = { errors };
    try {
      await page.setViewport({ width: size[0], height: size[1], deviceScaleFactor: shot ? 2 : 1 });
      await page.goto(address);
      await page.waitForSelector(until, { timeout: 300_000 });
      for (const [label, value] of Object.entries(type)) {
        const id = await page.$$eval("label", (all, text) => all.find((one) => one.textContent === text).htmlFor, label);
        const before = await page.$eval("body", (body) => Number(body.dataset.answers));
        await page.$eval(`#${id}`, (field, text) => {
          field.value = field.tagName === "SELECT" ? [...field.options].find((one) => one.text === text).value : text;
          field.dispatchEvent(new Event("input", { bubbles: true }));
        }, value);
        await page.waitForFunction((n) => Number(document.body.dataset.answers) > n, {}, before);
      }
      if (shot) await page.screenshot({ path: shot, fullPage: true });
      answer.html = await page.content();
    } catch (error) {
      answer.failed = String(error);
      answer.html = await page.content();
    }
    await page.close();
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  await browser.close();
})();
