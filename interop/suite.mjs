// Runs the scenarios: real clients against a focus, in the network namespace that the caller made.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Clients } from './lib/clients.mjs';
import { Focus } from './lib/focus.mjs';
import { serve } from './lib/pages.mjs';
import { killAll } from './lib/process.mjs';
import { Plays, load } from './lib/scenarios.mjs';

const { values: options, positionals: filters } = parseArgs({
  allowPositionals: true,
  options: {
    weir: { type: 'string' },
    address: { type: 'string', default: '10.77.0.1' },
    address6: { type: 'string', default: 'fd77::1' },
    python: { type: 'string', default: 'python3' },
    peer: { type: 'string' },
    report: { type: 'string' },
    list: { type: 'boolean', default: false },
    full: { type: 'boolean', default: false },
  },
});

const scenarios = await load(new URL('scenarios/', import.meta.url));
const chosen = scenarios.filter(({ name, onlyFull }) =>
  (options.full || !onlyFull) && (filters.length === 0 || filters.some((filter) => name.includes(filter))));
if (options.list) {
  for (const { name } of scenarios) console.log(name);
  process.exit(0);
}

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'weir-interop-'));
const focus = new Focus(options.weir, options.address, options.address6, scratch);
await focus.start();
const pages = await serve();
const clients = new Clients(focus, pages, { python: options.python, peer: options.peer });
const plays = new Plays({
  failed() {
    for (const client of clients.open) console.log(`       ${client.kind} ${client.identity}:\n         ${client.tail?.slice(-12).join('\n         ')}`);
    console.log(`       focus:\n         ${focus.log.slice(-40).join('\n         ')}`);
  },
  async clear() {
    await clients.closeAll();
    if (focus.process.child.exitCode !== null || focus.process.child.signalCode !== null) await focus.start();
  },
});

let rooms = 0;
for (const scenario of chosen) {
  // A room of its own for each play.
  await plays.play(scenario, { focus, clients, full: options.full, get room() { return `room-${rooms++}`; } });
}

await clients.end();
const panics = focus.log.filter((line) => line.includes('panicked'));
if (panics.length > 0) plays.fails('the focus never panics', panics.join('\n'));
await focus.kill('SIGTERM');
pages.server.close();
killAll();
fs.rmSync(scratch, { recursive: true, force: true });
const { failed, text } = plays.summary();
if (options.report) fs.writeFileSync(options.report, JSON.stringify(plays.results, null, 2));
console.log(`interop: ${text}`);
process.exit(failed > 0 ? 1 : 0);
