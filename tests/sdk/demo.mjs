// What the Node tests know of the running demo: where it is, its keys, and how to move it.
// Everything here is the tests' own; the clients under test are loaded unmodified by `load`.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const patienceMs = 1000 * Number(process.env.FEIQIAN_TEST_PATIENCE_S ?? 40);

/** Loads a package from the folder where `scripts/ensure.sh` installed it, outside the clone. */
export function load(name) {
  const folder = process.env.FEIQIAN_NODE_FOLDER;
  assert.ok(folder, 'FEIQIAN_NODE_FOLDER is not set: run this through its run.sh');
  return createRequire(resolve(folder, 'package.json'))(name);
}

/** Asks `probe` until it gives something; says what was awaited when it gives up. */
export async function eventually(what, probe) {
  const end = Date.now() + patienceMs;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > end) throw new Error(`after ${patienceMs / 1000} s still not: ${what}`);
    await sleep(100);
  }
}

/** One call of the control API under `/_sim/`. */
export async function control(url, verb, body) {
  const answer = await fetch(`${url.replace(/\/$/, '')}/_sim/${verb}`, {
    method: body ? 'POST' : 'GET',
    headers: { 'Content-Type': 'application/json' },
    body: body && JSON.stringify(body),
  });
  const text = await answer.text();
  assert.ok(answer.ok, `control ${verb} ${JSON.stringify(body)}: ${answer.status} ${text}`);
  return text.trim() ? JSON.parse(text) : {};
}

/** `demo.json` with its file entries read, as two servers of one wire format. */
export function demo() {
  const directory = process.env.FEIQIAN_DEMO_DIR;
  assert.ok(directory, 'FEIQIAN_DEMO_DIR is not set: run this through its run.sh');
  const facts = JSON.parse(readFileSync(resolve(directory, 'demo.json'), 'utf8'));
  const wechat = facts.simulators.wechat;
  // Both clocks move together, or orders of the one would be expired at the other.
  const clocks = [wechat.control_url, facts.base_url];
  const target = (name, its) => new Target(directory, name, its, wechat.control_url, clocks);
  return { feiqian: target('feiqian', facts), simulator: target('simulator', wechat) };
}

function material(directory, entry) {
  if (entry.startsWith('-----BEGIN')) return entry;
  const path = resolve(directory, entry);
  return existsSync(path) && statSync(path).isFile() ? readFileSync(path, 'utf8').trim() : entry;
}

class Target {
  constructor(directory, name, facts, controlUrl, clocks) {
    const read = (entry) => material(directory, entry);
    this.name = name;
    this.isPlatform = name === 'feiqian';
    this.baseUrl = facts.base_url.replace(/\/$/, '');
    this.controlUrl = controlUrl;
    this.clocks = clocks;
    this.mchid = facts.mchid;
    this.appid = facts.appid;
    this.merchantSerial = facts.merchant_serial;
    this.merchantPrivateKey = read(facts.merchant_private_key);
    this.apiv3Key = read(facts.apiv3_key);
    this.platformPublicKey = read(facts.platform_public_key);
    this.platformPublicKeyId = facts.platform_public_key_id;
    this.platformCertificate = read(facts.platform_certificate);
    this.platformSerial = facts.platform_serial;
  }

  /** Confirms the simulator's order that carries one of `marks`. */
  async pay(marks, outcome = 'success') {
    const order = await eventually(`the simulator has an order with one of ${marks}`, async () => {
      const answer = await control(this.controlUrl, 'orders');
      const orders = Array.isArray(answer) ? answer : answer.orders;
      return orders.find((it) => Object.values(it).some((value) => value && marks.includes(value)));
    });
    await control(this.controlUrl, 'confirm', { out_trade_no: order.out_trade_no, outcome });
    return order;
  }

  async advanceClocks(seconds) {
    for (const url of this.clocks) await control(url, 'clock', { advance_s: seconds });
  }
}

/** A merchant's notification address: keeps what arrives, answers 204. */
export class MerchantServer {
  received = [];

  async start() {
    this.http = createServer(async (request, response) => {
      const pieces = [];
      for await (const piece of request) pieces.push(piece);
      const body = Buffer.concat(pieces).toString('utf8');
      this.received.push({ path: request.url, headers: request.headers, body });
      response.writeHead(204).end();
    });
    await new Promise((done) => { this.http.listen(0, '127.0.0.1', done); });
    return this;
  }

  address() {
    return `http://127.0.0.1:${this.http.address().port}/notify/${randomUUID()}`;
  }

  waitFor(url) {
    const { pathname } = new URL(url);
    return eventually(`a notification at ${url}`, () => this.received.find((it) => it.path === pathname));
  }

  stop() {
    this.http.closeAllConnections();
    this.http.close();
  }
}
