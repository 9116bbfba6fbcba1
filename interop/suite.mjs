// Runs the scenarios: real clients against a focus, in the network namespace that the caller made.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Clients } from './lib/clients.mjs';
import { Focus } from './lib/focus.mjs';
import { serve } from './lib/pages.mjs';
import { killAll } from './lib/process.mjs';

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

const scenarios = [];
for (const file of fs.readdirSync(new URL('scenarios/', import.meta.url)).sort()) {
  const { default: found } = await import(`./scenarios/${file}`);
  scenarios.push(...found.map((scenario) => ({ ...scenario, name: `${path.basename(file, '.mjs')}: ${scenario.name}` })));
}
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
const results = [];
const SCENARIO_DEADLINE = 180000;

for (const [at, scenario] of chosen.entries()) {
  const started = Date.now();
  const notes = [];
  const context = { focus, clients, full: options.full, room: `room-${at}`, note: (text) => notes.push(text) };
  let failure;
  let timer;
  try {
    await Promise.race([
      scenario.run(context),
      new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error('the scenario did not end')), scenario.deadline ?? SCENARIO_DEADLINE);
      }),
    ]);
  } catch (error) {
    failure = error;
  }
  clearTimeout(timer);
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  results.push({ name: scenario.name, seconds: Number(seconds), notes, failure: failure?.message });
  console.log(`${failure ? 'FAILED' : 'ok    '} ${scenario.name} (${seconds} s)${notes.map((note) => `\n         ${note}`).join('')}`);
  if (failure) {
    console.log(`         ${failure.stack?.split('\n').slice(0, 3).join('\n         ')}`);
    for (const client of clients.open) console.log(`       ${client.kind} ${client.identity}:\n         ${client.tail?.slice(-12).join('\n         ')}`);
    console.log(`       focus:\n         ${focus.log.slice(-40).join('\n         ')}`);
  }
  await clients.closeAll();
  if (focus.process.child.exitCode !== null || focus.process.child.signalCode !== null) await focus.start();
}

await clients.end();
const panics = focus.log.filter((line) => line.includes('panicked'));
if (panics.length > 0) results.push({ name: 'the focus never panics', failure: panics.join('\n') });
await focus.kill('SIGTERM');
pages.server.close();
killAll();
fs.rmSync(scratch, { recursive: true, force: true });
const failed = results.filter((result) => result.failure).length;
if (options.report) fs.writeFileSync(options.report, JSON.stringify(results, null, 2));
console.log(`interop: ${results.length - failed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
