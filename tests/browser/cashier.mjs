// The cashier as a payer meets it: a real browser, on a phone and on a desktop, in both languages,
// from the merchant's signed call to the page that says "paid". Run by `run.sh`.

import assert from 'node:assert/strict';
import { createSign, randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { control, demo, eventually, load, MerchantServer } from '../sdk/demo.mjs';

const { chromium } = load('playwright-core');

const { feiqian } = demo();
const artifacts = process.env.FEIQIAN_ARTIFACTS ?? 'artifacts/cashier';
const patience = 20_000;
const goods = '飞钱周边 帆布袋 × 2';
const budgetBytes = 30 * 1024;

const android = 'Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36';
const devices = {
  phone: { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2, userAgent: android },
  desktop: { viewport: { width: 1280, height: 800 } },
};
const languages = {
  zh: { locale: 'zh-CN', html: 'zh-CN', refresh: /刷新/ },
  en: { locale: 'en-US', html: 'en', refresh: /refresh/i },
};

/** A merchant's call, signed as WeChat Pay V3 asks for it. */
async function call(method, path, body) {
  const text = body === undefined ? '' : JSON.stringify(body);
  const [at, nonce] = [Math.floor(Date.now() / 1000), randomUUID().replaceAll('-', '')];
  const message = [method, path, at, nonce, text, ''].join('\n');
  const signature = createSign('sha256').update(message).sign(feiqian.merchantPrivateKey, 'base64');
  const fields = { mchid: feiqian.mchid, nonce_str: nonce, signature, timestamp: at, serial_no: feiqian.merchantSerial };
  const authorization = Object.entries(fields).map(([name, value]) => `${name}="${value}"`).join(',');
  const answer = await fetch(feiqian.baseUrl + path, {
    method,
    headers: {
      Authorization: `WECHATPAY2-SHA256-RSA2048 ${authorization}`,
      Accept: 'application/json',
      'Content-Type': 'application/json',
      'User-Agent': 'feiqian-cashier-test',
    },
    body: text || undefined,
  });
  const got = await answer.text();
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${got}`);
  return got ? JSON.parse(got) : undefined;
}

describe('cashier', () => {
  const merchant = new MerchantServer();
  let browser;

  before(async () => {
    await merchant.start();
    browser = await chromium.launch({
      executablePath: process.env.FEIQIAN_CHROMIUM ?? '/usr/bin/chromium',
      args: [
        '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
        '--disable-background-networking', '--disable-component-update', '--no-proxy-server',
        '--disable-dev-shm-usage',
      ],
    });
  });
  after(async () => {
    await browser?.close();
    merchant.stop();
  });

  /** A new order with its cashier address. */
  async function order(changes = {}) {
    const facts = {
      appid: feiqian.appid,
      mchid: feiqian.mchid,
      description: goods,
      out_trade_no: `C${randomUUID().replaceAll('-', '').slice(0, 24)}`,
      notify_url: merchant.address(),
      return_url: merchant.address(),
      amount: { total: 12_345, currency: 'CNY' },
      ...changes,
    };
    const answer = await call('POST', '/v3/feiqian/cashier', facts);
    assert.match(answer.cashier_url, /^https?:\/\//, JSON.stringify(answer));
    return { facts, url: answer.cashier_url };
  }

  async function open(device, language, more = {}) {
    const context = await browser.newContext({
      ...devices[device], locale: languages[language].locale, timezoneId: 'Asia/Shanghai', ...more,
    });
    context.setDefaultTimeout(patience);
    return context;
  }

  const part = (page, id) => page.locator(`[data-testid="${id}"]`);
  const state = (page) => part(page, 'status').getAttribute('data-state');
  const shot = (page, name) => page.screenshot({ path: join(artifacts, `${name}.png`), fullPage: true });

  async function reaches(page, wanted) {
    const status = page.locator(`[data-testid="status"][data-state="${wanted}"]`);
    await status.waitFor().catch(async (error) => {
      await shot(page, `never-${wanted}`);
      throw new Error(`the page never became ${wanted}, it is ${await state(page)}`, { cause: error });
    });
  }

  /** Until there is a way to pay: a code on a desktop, the wallet's link on a phone. With several
   *  methods, or one to confirm, WeChat is chosen. */
  async function choose(page) {
    const choice = page.locator('button[data-testid^="method-wechat"]').or(page.locator('button[data-testid^="method-"]')).first();
    const ready = part(page, 'qr').or(part(page, 'open-wallet')).first();
    await ready.or(choice).first().waitFor();
    if (!(await ready.isVisible())) await choice.click();
    await ready.waitFor();
  }

  /** The wallet: the simulator's page, in a tab of its own, as the payer's other app would be. */
  async function wallet(context, page, url) {
    const link = part(page, 'open-wallet');
    let address = await link.count() ? await link.getAttribute('href') : undefined;
    if (!address?.startsWith('http')) {
      const found = await eventually('the simulator knows the order and its wallet page', async () => {
        const answer = await control(feiqian.controlUrl, 'orders');
        const orders = Array.isArray(answer) ? answer : answer.orders;
        return orders.findLast((it) => it.amount === 12_345 && it.state === 'NOTPAY' && it.wallet_url);
      });
      address = found.wallet_url;
    }
    const tab = await context.newPage();
    await tab.goto(new URL(address, url).href);
    return tab;
  }

  async function answer(tab, outcome) {
    await tab.locator(`button[name="outcome"][value="${outcome}"]`).click();
    await tab.waitForLoadState();
  }

  const scrollsSideways = (page) => page.evaluate(
    () => document.documentElement.scrollWidth > document.documentElement.clientWidth,
  );

  /** Bytes on the wire of everything the page loads, but for the endless event stream. */
  async function weigh(page) {
    const session = await page.context().newCDPSession(page);
    await session.send('Network.enable');
    await session.send('Network.setCacheDisabled', { cacheDisabled: true });
    const bytes = { total: 0 };
    session.on('Network.loadingFinished', (event) => { bytes.total += event.encodedDataLength; });
    return bytes;
  }

  for (const device of Object.keys(devices)) {
    for (const language of Object.keys(languages)) {
      test(`${device}, ${language}: from the page to success without a reload`, async () => {
        const { facts, url } = await order();
        const context = await open(device, language);
        const page = await context.newPage();
        const troubles = [];
        page.on('pageerror', (error) => troubles.push(`script: ${error.message}`));
        page.on('console', (line) => { if (line.type() === 'error') troubles.push(line.text()); });
        const bytes = await weigh(page);

        const loaded = await page.goto(url);
        assert.equal(loaded.status(), 200);
        assert.equal(await page.locator('html').getAttribute('lang'), languages[language].html);
        await choose(page);
        bytes.total = 0; // The page with the code is the heaviest: weigh it alone, nothing cached.
        await page.reload();
        // A phone outside the wallet is given the wallet's link, anything else a code.
        await part(page, device === 'phone' ? 'open-wallet' : 'qr').waitFor();
        await page.waitForTimeout(500);
        assert.ok(bytes.total > 0 && bytes.total <= budgetBytes, `${bytes.total} bytes on the wire`);

        assert.match(await part(page, 'amount').innerText(), /123\.45/);
        assert.ok((await part(page, 'merchant').innerText()).trim());
        assert.equal((await part(page, 'goods').innerText()).trim(), goods);
        assert.match(await part(page, 'countdown').innerText(), /\d\d:\d\d/);
        if (device === 'desktop') {
          assert.equal(await part(page, 'qr').evaluate((it) => it.tagName.toLowerCase()), 'svg');
          const box = await part(page, 'qr').boundingBox();
          assert.ok(box.width >= 120 && Math.abs(box.width - box.height) < 2, `code of ${JSON.stringify(box)}`);
        }
        assert.equal(await state(page), 'waiting');
        assert.equal(await scrollsSideways(page), false, 'scrolls sideways');
        if (device === 'phone') assert.ok(await part(page, 'open-wallet').isVisible(), 'no wallet button');
        await shot(page, `${device}-${language}-1-waiting`);

        await page.evaluate(() => { window.notReloaded = true; });
        const tab = await wallet(context, page, url);
        await shot(tab, `${device}-${language}-2-wallet`);
        await answer(tab, 'success');
        await page.bringToFront();
        await reaches(page, 'success');
        assert.equal(await page.evaluate(() => window.notReloaded), true, 'the page was reloaded');
        assert.ok(await part(page, 'return').isVisible(), 'no way back to the merchant');
        assert.equal(await part(page, 'return').getAttribute('href'), facts.return_url);
        assert.equal(await scrollsSideways(page), false, 'scrolls sideways after success');
        await shot(page, `${device}-${language}-3-success`);
        assert.deepEqual(troubles, []);
        await merchant.waitFor(facts.notify_url);
        await context.close();
      });
    }
  }

  test('the language can be switched', async () => {
    const { url } = await order();
    const context = await open('phone', 'zh');
    const page = await context.newPage();
    await page.goto(url);
    assert.equal(await page.locator('html').getAttribute('lang'), 'zh-CN');
    await part(page, 'lang-switch').click();
    await page.locator('html[lang="en"]').waitFor();
    await part(page, 'lang-switch').click();
    await page.locator('html[lang="zh-CN"]').waitFor();
    await context.close();
  });

  test('a declined payment is not a success, and the payer may try again', async () => {
    const { url } = await order();
    const context = await open('phone', 'zh');
    const page = await context.newPage();
    await page.goto(url);
    await choose(page);
    const tab = await wallet(context, page, url);
    await answer(tab, 'decline');
    await page.bringToFront();
    await page.waitForTimeout(1500);
    await page.reload();
    assert.ok(['waiting', 'paying', 'failed'].includes(await state(page)), await state(page));
    await shot(page, 'phone-zh-declined');
    if (await state(page) === 'waiting') {
      await choose(page);
      await answer(await wallet(context, page, url), 'success');
      await page.bringToFront();
      await reaches(page, 'success');
    }
    await context.close();
  });

  test('an order that the merchant closes is closed on the open page', async () => {
    const { facts, url } = await order();
    const context = await open('desktop', 'en');
    const page = await context.newPage();
    await page.goto(url);
    await part(page, 'status').waitFor();
    await call('POST', `/v3/pay/transactions/out-trade-no/${facts.out_trade_no}/close`, { mchid: feiqian.mchid });
    await reaches(page, 'closed');
    assert.equal(await part(page, 'qr').count(), 0, 'a closed order offers no code');
    await shot(page, 'desktop-en-closed');
    await context.close();
  });

  test('an address that leads to no payment says so', async () => {
    const { url } = await order();
    const context = await open('phone', 'en');
    const page = await context.newPage();
    const middle = Math.floor(url.length - 8);
    const wrong = url.slice(0, middle) + (url[middle] === 'A' ? 'B' : 'A') + url.slice(middle + 1);
    const loaded = await page.goto(wrong);
    assert.equal(loaded.status(), 404, wrong);
    assert.equal(await part(page, 'amount').count(), 0);
    await shot(page, 'phone-en-unknown');
    await context.close();
  });

  for (const device of Object.keys(devices)) {
    test(`${device}: usable without script`, async () => {
      const { url } = await order();
      const context = await open(device, 'zh', { javaScriptEnabled: false });
      const page = await context.newPage();
      await page.goto(url);
      await choose(page);
      assert.match(await part(page, 'amount').innerText(), /123\.45/);
      assert.ok(await page.getByRole('link', { name: languages.zh.refresh }).isVisible(), 'no refresh link');
      await shot(page, `${device}-zh-no-script`);
      const tab = await wallet(context, page, url);
      await answer(tab, 'success');
      await eventually('the page shows success after a refresh', async () => {
        await page.goto(url);
        return await state(page) === 'success';
      });
      await context.close();
    });
  }
});
