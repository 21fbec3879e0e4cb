// Drives the web lab in a headless Chromium.
//
//     node tests/lab/run.mjs target/release/malmoi
//
// Needs `npm ci` in this folder and a Chromium ($CHROMIUM, or `chromium` on the path). Trains a BERT, a GPT and a T5 of a few thousand numbers for some
// steps in target/lab on first use, teaches the BERT entities and questions, serves them all, and checks what the pages show. Prints a line a check and ends with a status.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const WORK = join(ROOT, 'target/lab');
const VIEWS = ['attention', 'prediction', 'playground', 'machine', 'training', 'learn'];
const SENTENCE = '어제 카페 갔었어 거기 사람 많더라';
// A shared machine may be slow; nothing here waits longer than it must.
const PATIENCE = 60_000;

/** Runs a command that leaves a model in a folder, unless it is there. */
function made(malmoi, out, command, settings) {
  if (!existsSync(join(out, 'last/config.json'))) {
    execFileSync(malmoi, ['--quiet', ...command, '--out', out, ...settings.flatMap((one) => ['--set', one])], { cwd: ROOT, stdio: 'inherit' });
  }
  return join(out, 'last');
}

/** A small model after a few steps; its run directory is what the training view shows. */
function train(malmoi, kind) {
  const settings = ['model.d_model=64', 'model.n_layers=2', 'model.n_heads=4', 'train.steps=12', 'schedule.warmup_steps=2', 'log.every=2', 'evaluate.batches=1'];
  if (kind === 'bert') settings.push('model.d_ff=128');
  if (kind === 't5') settings.push('train.batch_size=8', 'tokenizer.train.vocab_size=2000');
  return made(malmoi, join(WORK, 'runs', kind), ['pretrain', `configs/${kind}-korean-small.toml`], settings);
}

/** The small BERT, taught a task from the rows of the repository until it knows some of them by heart. */
function teach(malmoi, bert, task, [train, valid], settings) {
  const files = ['--train', `data/samples/${train}`, '--valid', `data/samples/${valid}`];
  return made(malmoi, join(WORK, task), ['finetune', task, '--model', bert, ...files], settings);
}

/** Starts the server on a free port and waits until its models are loaded. */
async function serve(malmoi) {
  const all = Object.fromEntries(['bert', 'gpt', 't5'].map((kind) => [kind, train(malmoi, kind)]));
  all.ner = teach(malmoi, all.bert, 'tag', ['ko_ner_klue/train.tsv.gz', 'ko_ner_klue/valid.tsv.gz'], ['train.epochs=60.0', 'optimizer.lr=3e-3']);
  all.qa = teach(malmoi, all.bert, 'qa', ['en_qa_xquad/train.json', 'en_qa_xquad/valid.json'], ['train.epochs=0.1']);
  const models = Object.entries(all).flatMap(([name, folder]) => ['--model', `${name}=${folder}`]);
  const server = spawn(malmoi, ['serve', ...models, '--runs', join(WORK, 'runs'), '--port', '0'], { cwd: ROOT, stdio: ['ignore', 'ignore', 'pipe'] });
  const url = await new Promise((found, failed) => {
    const lines = createInterface({ input: server.stderr });
    const seen = [];
    lines.on('line', (line) => {
      seen.push(line);
      const address = line.match(/listening on (http:\/\/\S+)/);
      if (address) found(address[1]);
    });
    server.on('exit', (code) => failed(new Error(`the server ended with ${code}:\n${seen.join('\n')}`)));
  });
  for (let tries = 0; !(await fetch(`${url}/ready`).then((answer) => answer.ok, () => false)); tries += 1) {
    assert(tries < 600, 'the server did not become ready');
    await new Promise((on) => setTimeout(on, 100));
  }
  return { server, url };
}

/** A page that notes what must not happen: errors in the console, and requests to other hosts. */
async function open(browser, url, options) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, locale: 'ko-KR', ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const faults = [];
  page.on('console', (message) => message.type() === 'error' && faults.push(`console: ${message.text()}`));
  page.on('pageerror', (error) => faults.push(`page: ${error.message}`));
  page.on('request', (request) => new URL(request.url()).origin !== url && faults.push(`request to ${request.url()}`));
  return { page, faults, close: () => context.close() };
}

/** Waits until something holds in the page. Playwright's own way to wait evaluates text there, which the page's policy forbids. */
async function until(page, holds, argument) {
  for (const start = Date.now(); !(await page.evaluate(holds, argument)); ) {
    assert(Date.now() - start < PATIENCE, `waited in vain for ${holds}`);
    await new Promise((on) => setTimeout(on, 40));
  }
}

/** Opens a view and waits until nothing is at work in it. */
async function go(page, url, view) {
  await page.goto(`${url}/#/${view}`);
  await page.waitForSelector(`main[data-view="${view}"] .body > *`, { state: 'attached' });
  await until(page, () => !document.querySelector('[data-state="busy"]'));
}

/** The large map of a card, once it is drawn: `matrix[query][key]`. */
async function matrix(page, direction) {
  const cells = page.locator(`[data-direction="${direction}"] rect[data-q]`);
  await cells.first().waitFor({ state: 'attached' });
  return cells.evaluateAll((all) => {
    const rows = [];
    for (const { dataset } of all) (rows[dataset.q] ??= [])[dataset.k] = Number(dataset.p);
    return rows;
  });
}

const upper = (rows) => rows.flatMap((row, q) => row.filter((_, k) => k > q));

const CHECKS = {
  async 'every view is drawn, in both languages, wide and narrow, light and dark'({ browser, url }) {
    for (const [width, colorScheme, locale] of [[1440, 'light', 'ko-KR'], [390, 'dark', 'en-US'], [1440, 'dark', 'en-US'], [390, 'light', 'ko-KR']]) {
      const { page, faults, close } = await open(browser, url, { viewport: { width, height: 844 }, colorScheme, locale });
      const titles = new Set();
      for (const view of VIEWS) {
        await go(page, url, view);
        titles.add(await page.locator('h1').innerText());
        assert.equal(await page.locator('[data-state="failed"]').count(), 0, `${view} shows an error`);
        assert.equal(await page.locator('#nav a[aria-current="page"]').getAttribute('href'), `#/${view}`);
        const wider = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        assert(wider <= 0, `${view} is ${wider} pixels wider than a window of ${width}`);
        // A text whose key is missing would show as its key.
        assert.doesNotMatch(await page.locator('body').innerText(), /\b(attention|prediction|playground|machine|training|learn|nav|box|blocks|task|set|field)\.[a-z]+\b/);
      }
      assert.equal(titles.size, VIEWS.length);
      assert.deepEqual(faults, []);
      await close();
    }
  },

  async 'attention: a decoder sees nothing right of the diagonal, an encoder does'({ page, url }) {
    await go(page, url, 'attention');
    assert.equal(await page.inputValue('#sentence'), SENTENCE);
    const [bert, gpt] = [await matrix(page, 'encoder'), await matrix(page, 'decoder')];
    for (const rows of [bert, gpt]) {
      assert(rows.length > 4 && rows.every((row) => row.length === rows.length), 'expected a square');
      // Values come rounded to six digits.
      for (const row of rows) assert(Math.abs(row.reduce((sum, p) => sum + p, 0) - 1) < 1e-6 * row.length, 'a row does not sum to 1');
    }
    assert(upper(gpt).every((p) => p === 0), 'GPT looks to the right');
    assert(upper(bert).some((p) => p > 0), 'BERT does not look to the right');
    const first = page.locator('[data-direction="decoder"] .token').first();
    await first.click();
    const unseen = await page.locator('[data-direction="decoder"] .token.hidden').count();
    assert.equal(unseen, gpt.length - 1, 'the first word sees only itself');
    assert.equal(await page.locator('[data-direction="encoder"] .token.hidden').count(), 0);
    const heads = page.locator('[data-direction="decoder"] .mini');
    assert.equal(await heads.count(), 2 * 4);
    await heads.first().click();
    assert.notDeepEqual(await matrix(page, 'decoder'), gpt);
  },

  async 'attention: an encoder-decoder looks from what it writes at what it reads'({ page, url }) {
    await go(page, url, 'attention');
    const card = '[data-direction="encoder-decoder"]';
    const words = () => page.locator(`${card} button.token`).count();
    const across = await matrix(page, 'encoder-decoder');
    const read = await page.locator(`${card} .lookedat .token`).count();
    assert(read > 4 && across.length === await words(), 'a row for each written token');
    assert(across.every((row) => row.length === read && Math.abs(row.reduce((sum, p) => sum + p, 0) - 1) < 1e-6 * read), 'a row of probabilities over what was read');
    const part = (index) => page.locator(`${card} .segmented button`).nth(index).click();
    await part(1);
    assert(upper(await matrix(page, 'encoder-decoder')).some((p) => p > 0), 'its encoder does not look to the right');
    await page.fill(`${card} input[type="text"]`, '사람이 많았다');
    await page.locator(`${card} form button`).click();
    await until(page, () => !document.querySelector('[data-state="busy"]'));
    await part(2);
    const written = await matrix(page, 'encoder-decoder');
    assert(written.length > 2 && written.length === await words() && upper(written).every((p) => p === 0), 'its decoder looks to the right');
  },

  async 'attention: words can be walked by keys'({ page, url }) {
    await go(page, url, 'attention');
    const pressed = '[data-direction="encoder"] .token[aria-pressed="true"]';
    await page.locator('[data-direction="encoder"] .token').nth(1).focus();
    const before = await page.locator(pressed).getAttribute('data-focus');
    await page.keyboard.press('ArrowRight');
    await until(page, ([selector, old]) => document.querySelector(selector).dataset.focus !== old, [pressed, before]);
    assert.equal(await page.evaluate(() => document.activeElement.dataset.focus), 'token-2');
  },

  async 'prediction: hiding a word shows candidates, and the next word has probabilities'({ page, url }) {
    await go(page, url, 'prediction');
    const words = page.locator('.card.bert .token:not(:disabled)');
    const word = (await words.nth(1).innerText()).trim();
    await words.nth(1).click();
    await until(page, (text) => document.querySelector('.card.bert .blankset h3 b')?.textContent === text, word);
    assert.equal((await words.nth(1).innerText()).trim(), '[MASK]');
    const candidates = page.locator('.card.bert .blankset').first().locator('.bars li');
    assert.equal(await candidates.count(), 6);
    const shares = (await candidates.locator('.number').allInnerTexts()).map((text) => parseFloat(text.replace('<', '')));
    assert(shares.every((share, i) => share > 0 && (i === 0 || share <= shares[i - 1])), `not sorted: ${shares}`);
    const gpt = page.locator('.card.gpt');
    const sofar = await gpt.locator('.sofar').innerText();
    await gpt.locator('[data-focus="on"]').click();
    assert((await gpt.locator('.sofar').innerText()).length > sofar.length);
    assert.equal(await gpt.locator('.bars li').count(), 8);
  },

  async 'playground: a generation streams, and another token can be taken'({ page, url }) {
    await go(page, url, 'playground');
    // Counted while it comes: a stream fills the page in several turns.
    await page.evaluate(() => {
      window.sizes = new Set();
      new MutationObserver(() => window.sizes.add(document.querySelectorAll('#written .piece').length)).observe(document.getElementById('written'), { childList: true });
    });
    await page.click('#write');
    await until(page, () => document.querySelectorAll('#written .piece').length > 3 && !document.querySelector('[data-running]'));
    const sizes = await page.evaluate(() => [...window.sizes]);
    assert(sizes.length > 3, `the text came in ${sizes.length} parts`);
    const written = () => page.locator('#written .piece').allInnerTexts();
    const before = await written();
    await page.locator('#written .piece').nth(1).click();
    const other = page.locator('#alternatives .branch:not(.right)').first();
    await other.click();
    await until(page, () => !document.querySelector('[data-running]') && document.querySelectorAll('#written .piece').length > 2);
    const after = await written();
    assert.equal(after[0], before[0], 'what stands before the branch stays');
    assert.notEqual(after[1], before[1], 'the branch begins with the other token');
  },

  async 'playground: tasks answer, or say what is missing'({ page, url }) {
    await go(page, url, 'playground');
    const tab = (index) => page.locator('main .tools .segmented button').nth(index).click();
    await tab(1);
    await page.waitForSelector('[data-state="empty"] .command');
    // A sentence of the training rows, of which some words are known by heart.
    await tab(2);
    await page.fill('textarea[name="text"]', '책 보고 궁금증으로 한번쯤 볼만한 영화...단 밀려오는 실망감은 감당해야됨');
    await page.locator('form button[type="submit"]').click();
    await page.waitForSelector('.answer .marked');
    assert((await page.locator('.answer mark').count()) > 0, 'no entity is marked');
    assert.equal(await page.locator('.answer mark').count(), await page.locator('.answer .bars li').count());
    await tab(3);
    await page.locator('form button[type="submit"]').click();
    await page.waitForSelector('.answer .bars li');
    const context = await page.inputValue('textarea[name="context"]');
    assert.equal(await page.locator('.answer .marked').innerText(), context);
    assert.equal(await page.locator('.answer .bars li').count(), 3);
    await tab(4);
    await page.locator('form button[type="submit"]').click();
    await page.waitForSelector('.answer .bars li');
    assert.equal(await page.locator('.answer .bars li').count(), 3);
    await tab(5);
    await page.locator('form button[type="submit"]').click();
    await page.waitForSelector('.answer .bars li');
    const shares = (await page.locator('.answer .number').allInnerTexts()).map(parseFloat);
    assert(Math.abs(shares.reduce((sum, share) => sum + share, 0) - 100) < 0.5, `labels share ${shares}`);
  },

  async 'machine: operations lie under the roof'({ page, url }) {
    await go(page, url, 'machine');
    await page.waitForSelector('.roofline .op');
    const roof = await page.locator('.roofline .roof:not(.thin)').last().evaluate((path) => path.getBBox().y);
    const tops = await page.locator('.roofline .op').evaluateAll((dots) => dots.map((dot) => Number(dot.getAttribute('cy'))));
    // A box is measured in single precision: to some hundred-thousandths of a pixel.
    assert(tops.length > 3 && tops.every((y) => y >= roof - 1e-3), `an operation lies above the roof at ${roof}: ${tops}`);
    await page.waitForSelector('#live .fact');
  },

  async 'training: the curves of a run are drawn'({ page, url }) {
    await go(page, url, 'training');
    await page.waitForSelector('.curve');
    assert.equal(await page.locator('.run').count(), 3);
    assert((await page.locator('.chart').count()) >= 4);
    const path = await page.locator('.curve').first().getAttribute('d');
    assert(path.split('L').length >= 5, `a curve of ${path}`);
  },

  async 'learn: steps lower the loss'({ page, url }) {
    await go(page, url, 'learn');
    const losses = () => page.locator('[data-loss]').evaluateAll((all) => all.map((one) => Number(one.dataset.loss)));
    await until(page, () => document.querySelectorAll('[data-loss]').length === 2);
    const first = await losses();
    for (let step = 0; step < 4; step += 1) await page.click('#once');
    await until(page, (old) => [...document.querySelectorAll('[data-loss]')].every((one, i) => Number(one.dataset.loss) < old[i]), first);
    await page.locator('.box.self').first().click();
    assert((await page.locator('.shapes').innerText()).includes('[T, 64]'));
  },

  async 'a server that is gone is said plainly'({ page, faults, url }) {
    await go(page, url, 'prediction');
    await page.context().setOffline(true);
    await page.locator('form.ask button').click();
    await page.waitForSelector('[data-state="failed"]');
    await page.context().setOffline(false);
    await page.locator('[data-state="failed"] button').first().click();
    await page.waitForSelector('.bars li');
    // The browser itself notes the requests that were cut off.
    for (let at = faults.length - 1; at >= 0; at -= 1) if (faults[at].includes('ERR_INTERNET_DISCONNECTED')) faults.splice(at, 1);
  },
};

async function main() {
  const malmoi = resolve(process.argv[2] ?? '');
  assert(process.argv[2] && existsSync(malmoi), 'expected the path of the malmoi program');
  mkdirSync(WORK, { recursive: true });
  const { server, url } = await serve(malmoi);
  let failed = 0;
  let browser;
  try {
    // As root, as in a container, Chromium starts only without its sandbox; it sees no page but ours.
    browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] });
    for (const [name, check] of Object.entries(CHECKS)) {
      const { page, faults, close } = await open(browser, url, {});
      try {
        await check({ browser, page, faults, url });
        assert.deepEqual(faults, []);
        console.log(`ok ${name}`);
      } catch (error) {
        failed += 1;
        console.log(`FAILED ${name}\n${error.message}`);
      }
      await close();
    }
  } finally {
    await browser?.close();
    server.removeAllListeners('exit');
    server.kill('SIGTERM');
  }
  console.log(`${Object.keys(CHECKS).length - failed} passed, ${failed} failed`);
  process.exitCode = failed ? 1 : 0;
}

await main();
