// npm `wechatpay-axios-plugin` 0.9.6, unmodified, against Feiqian and against the WeChat simulator.
// Only `baseURL` is changed. Run by `run.sh node`, which starts the demo and names its folder.
// Bills come last: they need the day to be over, so they move the clocks.

import assert from 'node:assert/strict';
import { createHash, createSign, generateKeyPairSync, randomUUID, X509Certificate } from 'node:crypto';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { demo, eventually, load, MerchantServer } from './demo.mjs';

const { Wechatpay, Rsa, Aes, Formatter } = load('wechatpay-axios-plugin');

const targets = demo();
const wanted = (process.env.FEIQIAN_SDK_TARGETS ?? 'feiqian,simulator').split(',');
const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+08:00$/;
const openid = 'oUpF8uMuAJO_M2pxb1Q9zNjWeS6o';
const number = (prefix = 'T') => prefix + randomUUID().replaceAll('-', '').slice(0, 24);

function client(target, { trust = 'certificate', ...changes } = {}) {
  const settings = {
    baseURL: target.baseUrl,
    mchid: target.mchid,
    serial: target.merchantSerial,
    privateKey: target.merchantPrivateKey,
    timeout: 30_000,
    proxy: false,
    certs: { [target.platformSerial]: target.platformCertificate },
  };
  if (trust === 'publicKey') {
    settings.certs = { [target.platformPublicKeyId]: target.platformPublicKey };
    settings.headers = { 'Wechatpay-Serial': target.platformPublicKeyId };
  }
  return new Wechatpay({ ...settings, ...changes });
}

/** The outcome of a call, also of a refused one, as { status, data, code }. */
async function outcome(call) {
  try {
    const { status, data, headers } = await call;
    return { status, data, headers };
  } catch (error) {
    if (!error.response) throw error;
    const { status, data, headers } = error.response;
    return { status, data, headers, code: error.code };
  }
}

async function answered(call, status = 200) {
  const got = await outcome(call);
  assert.equal(got.status, status, `answer: ${JSON.stringify(got.data)} ${got.code ?? ''}`);
  assert.ok(!String(got.code).startsWith('EV3_'), `the SDK refused the answer: ${got.code}`);
  return got.data;
}

async function refused(call, status, ...codes) {
  const got = await outcome(call);
  const seen = `answer: ${got.status} ${JSON.stringify(got.data)} ${got.code ?? ''}`;
  assert.equal(got.status, status, seen);
  const body = typeof got.data === 'string' ? JSON.parse(got.data) : got.data;
  assert.ok(codes.includes(body.code), `${seen}, wanted ${codes}`);
  assert.ok(body.message, 'a refusal explains itself');
  return body;
}

/** With the SDK's clock moved; the tests of one file run one after the other. */
async function withClock(offset, action) {
  const { timestamp } = Formatter;
  Formatter.timestamp = () => timestamp() + offset;
  try {
    return await action();
  } finally {
    Formatter.timestamp = timestamp;
  }
}

for (const name of wanted) {
  for (const trust of ['certificate', 'publicKey']) suite(targets[name], trust);
}
for (const name of wanted) bills(targets[name]);

/** An order of one merchant: made, paid, asked about. */
function shop(target, wxpay, merchant) {
  const facts = (product, changes = {}) => ({
    appid: target.appid,
    mchid: target.mchid,
    description: `飞钱测试商品 ${randomUUID().slice(0, 8)}`,
    out_trade_no: number(),
    notify_url: merchant.address(),
    attach: '附加数据=1&好',
    amount: { total: 100, currency: 'CNY' },
    ...(product === 'jsapi' && { payer: { openid } }),
    ...(product === 'h5' && { scene_info: { payer_client_ip: '14.23.150.211', h5_info: { type: 'Wap' } } }),
    ...changes,
  });
  const create = (product, order) => wxpay.v3.pay.transactions[product].post(order);
  const query = (outTradeNo) => wxpay.v3.pay.transactions.outTradeNo.$out_trade_no$
    .get({ params: { mchid: target.mchid }, out_trade_no: outTradeNo });
  const close = (outTradeNo) => wxpay.v3.pay.transactions.outTradeNo.$out_trade_no$.close
    .post({ mchid: target.mchid }, { out_trade_no: outTradeNo });
  const untilState = (outTradeNo, state) => eventually(`${outTradeNo} is ${state}`, async () => {
    const found = await answered(query(outTradeNo));
    return found.trade_state === state ? found : undefined;
  });
  const paid = async () => {
    const order = facts('native');
    const answer = await answered(create('native', order));
    await target.pay([answer.code_url, order.description]);
    return { order, found: await untilState(order.out_trade_no, 'SUCCESS') };
  };
  const refund = (order, total, changes = {}) => ({
    out_trade_no: order.out_trade_no,
    out_refund_no: number('R'),
    reason: '商品已售完',
    notify_url: merchant.address(),
    amount: { refund: total, total: 100, currency: 'CNY' },
    ...changes,
  });
  const refundCreate = (request) => wxpay.v3.refund.domestic.refunds.post(request);
  const refundQuery = (outRefundNo) => wxpay.v3.refund.domestic.refunds.$out_refund_no$
    .get({ out_refund_no: outRefundNo });
  const untilRefunded = (outRefundNo) => eventually(`refund ${outRefundNo} is SUCCESS`, async () => {
    const found = await answered(refundQuery(outRefundNo));
    return found.status === 'SUCCESS' ? found : undefined;
  });
  /** The notification at `url`, verified and decrypted with the SDK's own tools. */
  const notified = async (url) => {
    const { headers, body } = await merchant.waitFor(url);
    const serial = headers['wechatpay-serial'];
    const keys = {
      [target.platformSerial]: target.platformCertificate,
      [target.platformPublicKeyId]: target.platformPublicKey,
    };
    assert.ok(keys[serial], `the notification is signed by an unknown serial ${serial}`);
    const [at, nonce] = [headers['wechatpay-timestamp'], headers['wechatpay-nonce']];
    const key = Rsa.from(keys[serial], Rsa.KEY_TYPE_PUBLIC);
    const signature = headers['wechatpay-signature'];
    assert.ok(Rsa.verify(Formatter.response(at, nonce, body), signature, key), 'signature');
    assert.ok(!Rsa.verify(Formatter.response(at, nonce, `${body} `), signature, key));
    assert.equal(headers['wechatpay-signature-type'], 'WECHATPAY2-SHA256-RSA2048');
    const event = JSON.parse(body);
    const { ciphertext, nonce: iv, associated_data: aad, algorithm } = event.resource;
    assert.equal(algorithm, 'AEAD_AES_256_GCM');
    return { ...event, resource: JSON.parse(Aes.AesGcm.decrypt(ciphertext, target.apiv3Key, iv, aad)) };
  };
  return {
    facts, create, query, close, untilState, paid, refund, refundCreate, refundQuery, untilRefunded, notified,
  };
}

function suite(target, trust) {
  describe(`wechatpay-axios-plugin, ${trust}, against ${target.name}`, () => {
    const merchant = new MerchantServer();
    let wxpay;
    let at;

    before(async () => {
      await merchant.start();
      wxpay = client(target, { trust });
      at = shop(target, wxpay, merchant);
    });
    after(() => merchant.stop());

    test('creates native, jsapi, app and h5 orders', async () => {
      const native = await answered(at.create('native', at.facts('native')));
      assert.ok(native.code_url);
      for (const product of ['jsapi', 'app']) {
        const answer = await answered(at.create(product, at.facts(product)));
        assert.ok(answer.prepay_id && answer.prepay_id.length <= 64, JSON.stringify(answer));
        if (target.isPlatform) assert.ok(answer.pay_params, JSON.stringify(answer));
      }
      const h5 = await answered(at.create('h5', at.facts('h5')));
      assert.match(h5.h5_url, /^https?:\/\//);
    });

    test('queries an unpaid order', async () => {
      const order = at.facts('native');
      await answered(at.create('native', order));
      const found = await answered(at.query(order.out_trade_no));
      assert.equal(found.trade_state, 'NOTPAY');
      assert.equal(found.mchid, target.mchid);
      assert.equal(found.appid, target.appid);
    });

    test('a payment is queried both ways, notified and decrypted', async () => {
      const { order, found } = await at.paid();
      assert.equal(found.amount.total, 100);
      assert.equal(found.attach, order.attach);
      assert.match(found.success_time, time);
      const byId = await answered(wxpay.v3.pay.transactions.id.$transaction_id$
        .get({ params: { mchid: target.mchid }, transaction_id: found.transaction_id }));
      assert.deepEqual(byId, found);
      const event = await at.notified(order.notify_url);
      assert.equal(event.event_type, 'TRANSACTION.SUCCESS');
      for (const field of ['out_trade_no', 'transaction_id', 'trade_state', 'amount', 'attach']) {
        assert.deepEqual(event.resource[field], found[field], field);
      }
    });

    test('a close is answered by a signed 204', async () => {
      const order = at.facts('native');
      await answered(at.create('native', order));
      const got = await outcome(at.close(order.out_trade_no));
      assert.equal(got.status, 204, JSON.stringify(got.data));
      assert.ok(got.headers['wechatpay-signature'], 'the SDK verified it, so it was signed');
      await at.untilState(order.out_trade_no, 'CLOSED');
    });

    test('a refund is answered, queried, notified and decrypted', async () => {
      const { order, found } = await at.paid();
      const request = at.refund(order, 30);
      const refund = await answered(at.refundCreate(request));
      assert.ok(['PROCESSING', 'SUCCESS'].includes(refund.status), JSON.stringify(refund));
      assert.equal(refund.transaction_id, found.transaction_id);
      const again = await answered(at.refundCreate(request));
      assert.equal(again.refund_id, refund.refund_id);
      const done = await at.untilRefunded(request.out_refund_no);
      assert.match(done.success_time, time);
      await at.untilState(order.out_trade_no, 'REFUND');
      const event = await at.notified(request.notify_url);
      assert.equal(event.event_type, 'REFUND.SUCCESS');
      assert.equal(event.resource.out_refund_no, request.out_refund_no);
      assert.equal(event.resource.refund_status, 'SUCCESS');
    });

    test('refuses with the status, code and detail of the protocol', async () => {
      const order = at.facts('native');
      await answered(at.create('native', order));
      await answered(at.create('native', order));
      const dearer = { ...order, amount: { total: 101, currency: 'CNY' } };
      await refused(at.create('native', dearer), 400, 'INVALID_REQUEST');
      const zero = at.facts('native', { amount: { total: 0, currency: 'CNY' } });
      const problem = await refused(at.create('native', zero), 400, 'PARAM_ERROR');
      assert.equal(problem.detail.field, '/amount/total');
      const stranger = at.facts('native', { mchid: '1999999999' });
      await refused(at.create('native', stranger), 400, 'PARAM_ERROR');
      await refused(at.query(number()), 404, 'ORDER_NOT_EXIST');
      await refused(at.close(number()), 404, 'ORDER_NOT_EXIST');
      await refused(at.refundCreate(at.refund(order, 10)), 404, 'RESOURCE_NOT_EXISTS');
      await refused(at.refundQuery(number('R')), 404, 'RESOURCE_NOT_EXISTS');
      const { order: paid } = await at.paid();
      await refused(at.create('native', paid), 403, 'OUT_TRADE_NO_USED');
      await refused(at.refundCreate(at.refund(paid, 101)), 400, 'INVALID_REQUEST', 'PARAM_ERROR');
      const once = at.refund(paid, 40);
      await answered(at.refundCreate(once));
      const changed = { ...once, amount: { ...once.amount, refund: 41 } };
      await refused(at.refundCreate(changed), 400, 'INVALID_REQUEST');
    });

    test('/v3/certificates decrypts to the certificate that signed it', async () => {
      const { data } = await answered(wxpay.v3.certificates.get());
      const own = data.find((it) => it.serial_no === target.platformSerial);
      assert.ok(own, `${target.platformSerial} is not among ${data.map((it) => it.serial_no)}`);
      assert.match(own.effective_time, time);
      assert.match(own.expire_time, time);
      const { algorithm, nonce, associated_data: aad, ciphertext } = own.encrypt_certificate;
      assert.equal(algorithm, 'AEAD_AES_256_GCM');
      const pem = Aes.AesGcm.decrypt(ciphertext, target.apiv3Key, nonce, aad);
      const certificate = new X509Certificate(pem);
      assert.equal(BigInt(`0x${certificate.serialNumber}`), BigInt(`0x${target.platformSerial}`));
      // Fit for use: another client trusts this certificate alone.
      const other = client(target, { certs: { [own.serial_no]: pem } });
      await answered(other.v3.certificates.get());
    });

    test('another key is a wrong signature, another serial is refused', async () => {
      const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
      const key = privateKey.export({ type: 'pkcs8', format: 'pem' });
      const query = { params: { mchid: target.mchid }, out_trade_no: number() };
      const ask = (it) => it.v3.pay.transactions.outTradeNo.$out_trade_no$.get(query);
      await refused(ask(client(target, { trust, privateKey: key })), 401, 'SIGN_ERROR');
      await refused(ask(client(target, { trust, serial: '0123456789ABCDEF0123456789ABCDEF01234567' })), 401, 'SIGN_ERROR');
    });

    test('a request from a clock off by more than five minutes is refused', async () => {
      for (const offset of [302, -302]) {
        await withClock(offset, () => refused(at.query(number()), 401, 'SIGN_ERROR'));
      }
      for (const offset of [290, -290]) {
        await withClock(offset, () => refused(at.query(number()), 404, 'ORDER_NOT_EXIST'));
      }
    });

    test('the client refuses an answer of a serial it does not know', async () => {
      const certs = { '77777777777777777777777777777777DEADBEEF': target.platformCertificate };
      const got = await outcome(client(target, { certs }).v3.certificates.get());
      assert.equal(got.code, 'EV3_RES_HEADER_PLATFORM_SERIAL', JSON.stringify(got.data));
    });

    test('the client refuses an answer of another key under a known serial', async () => {
      const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
      const pem = publicKey.export({ type: 'spki', format: 'pem' });
      const got = await outcome(client(target, { certs: { [target.platformSerial]: pem } }).v3.certificates.get());
      assert.equal(got.code, 'EV3_RES_HEADER_SIGNATURE_DIGEST', JSON.stringify(got.data));
    });

    test('the client refuses an answer that was recorded and is replayed later', async () => {
      const recorded = await record(target, '/v3/certificates');
      const replay = createServer((_, response) => response.writeHead(200, recorded.headers).end(recorded.body));
      await new Promise((done) => { replay.listen(0, '127.0.0.1', done); });
      try {
        const baseURL = `http://127.0.0.1:${replay.address().port}`;
        await answered(client(target, { baseURL }).v3.certificates.get());
        const late = client(target, { baseURL });
        const got = await withClock(302, () => outcome(late.v3.certificates.get()));
        assert.equal(got.code, 'EV3_RES_HEADER_TIMESTAMP_OFFSET', JSON.stringify(got.data));
      } finally {
        replay.closeAllConnections();
        replay.close();
      }
    });
  });
}

/** A signed answer as it came over the wire. */
async function record(target, path) {
  const [at, nonce] = [Formatter.timestamp(), Formatter.nonce()];
  const signer = createSign('sha256').update(Formatter.request('GET', path, at, nonce));
  const signature = signer.sign(target.merchantPrivateKey, 'base64');
  const authorization = Formatter.authorization(target.mchid, nonce, signature, at, target.merchantSerial);
  const answer = await fetch(target.baseUrl + path, {
    headers: { Authorization: authorization, Accept: 'application/json', 'User-Agent': 'conformance' },
  });
  assert.equal(answer.status, 200, await answer.clone().text());
  const kept = [...answer.headers].filter(([name]) => name.startsWith('wechatpay-') || name === 'content-type');
  return { headers: Object.fromEntries(kept), body: await answer.text() };
}

function bills(target) {
  describe(`bills by wechatpay-axios-plugin at ${target.name}`, () => {
    const merchant = new MerchantServer();
    let order;
    let paid;
    let request;
    let day;

    before(async () => {
      await merchant.start();
      const at = shop(target, client(target), merchant);
      ({ order, found: paid } = await at.paid());
      request = at.refund(order, 30);
      await answered(at.refundCreate(request));
      await at.untilRefunded(request.out_refund_no);
      day = paid.success_time.slice(0, 10);
      await target.advanceClocks(2 * 86_400); // Bills are ready at 10:00 of the next day.
    });
    after(() => merchant.stop());

    async function fetched(wxpay, kind, params) {
      const bill = await answered(wxpay.v3.bill[kind].get({ params: { bill_date: day, ...params } }));
      assert.equal(bill.hash_type, 'SHA1');
      const url = new URL(bill.download_url);
      assert.equal(url.pathname, '/v3/billdownload/file');
      const file = await answered(wxpay.v3.billdownload.file.get({
        params: url.searchParams, responseType: 'arraybuffer',
      }));
      const plain = params.tar_type === 'GZIP' ? gunzipSync(file) : Buffer.from(file);
      assert.equal(createHash('sha1').update(plain).digest('hex'), bill.hash_value.toLowerCase());
      return plain;
    }

    for (const trust of ['certificate', 'publicKey']) {
      for (const packing of [{}, { tar_type: 'GZIP' }]) {
        const how = `${trust}, ${packing.tar_type ?? 'plain'}`;
        test(`trade bill, ${how}`, async () => {
          const wxpay = client(target, { trust });
          const { rows, summary } = Formatter.castCsvBill(await fetched(wxpay, 'tradebill', { bill_type: 'ALL', ...packing }));
          const own = rows.filter((it) => it['商户订单号'] === order.out_trade_no);
          assert.deepEqual(own.map((it) => it['交易状态']).sort(), ['REFUND', 'SUCCESS'], JSON.stringify(rows));
          const payment = own.find((it) => it['交易状态'] === 'SUCCESS');
          assert.equal(payment['微信订单号'], paid.transaction_id);
          assert.equal(payment['应结订单金额'], '1.00');
          const back = own.find((it) => it['交易状态'] === 'REFUND');
          assert.equal(back['商户退款单号'], request.out_refund_no);
          assert.equal(summary['总交易单数'], String(rows.length));
        });
        test(`fund flow bill, ${how}`, async () => {
          const wxpay = client(target, { trust });
          const { rows, summary } = Formatter.castCsvBill(await fetched(wxpay, 'fundflowbill', packing));
          assert.ok(rows.some((it) => it['微信支付业务单号'] === paid.transaction_id), JSON.stringify(rows));
          assert.equal(summary['资金流水总笔数'], String(rows.length));
        });
      }
    }
  });
}
