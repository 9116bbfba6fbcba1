// Scenarios: names that are claims, and what proves them.
import fs from 'node:fs';
import path from 'node:path';
import { Late, Overdue } from './wait.mjs';

const DEADLINE = 180000;
// Of a failure.
const MOST_LINES = 12;

// Those of a folder, a file for each subject.
export async function load(folder) {
  const scenarios = [];
  for (const file of fs.readdirSync(folder).sort()) {
    const { default: found } = await import(new URL(file, folder));
    scenarios.push(...found.map((scenario) => ({ ...scenario, name: `${path.basename(file, '.mjs')}: ${scenario.name}` })));
  }
  return scenarios;
}

// Runs one to its end or its deadline, and tells how it went.
export async function play(scenario, context) {
  const started = Date.now();
  const notes = [];
  let failure;
  let timer;
  try {
    await Promise.race([
      scenario.run({ ...context, note: (text) => notes.push(text) }),
      new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error('the scenario did not end')), scenario.deadline ?? DEADLINE);
      }),
    ]);
  } catch (error) {
    failure = error;
  }
  clearTimeout(timer);
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  console.log(`${failure ? (failure instanceof Late ? 'late  ' : 'FAILED') : 'ok    '} ${scenario.name} (${seconds} s)${notes.map((note) => `\n         ${note}`).join('')}`);
  if (failure) console.log(`         ${failure.stack?.split('\n').slice(0, MOST_LINES).join('\n         ')}`);
  return { name: scenario.name, seconds: Number(seconds), notes, failure: failure?.message, isLate: failure instanceof Late, isOverdue: failure instanceof Overdue };
}

// Scenarios of one suite that may need a second play. More are no accident.
const MOST_UNSTEADY = 2;

// Plays scenarios one after the other. Browsers on a busy machine stand still now and then, camera, negotiation and all: where
// something did not come, the scenario is played once more, and told apart if that goes well. A claim that does not hold, as
// that nothing is lost, fails at once. Whoever is late is played twice more: slow is who is late each time. `failed` keeps what a
// failure leaves, and `clear` makes room for the next play.
export class Plays {
  results = [];
  unsteady = 0;

  constructor({ failed, clear }) {
    Object.assign(this, { failed, clear });
  }

  async play(scenario, context) {
    let result = await play(scenario, context);
    for (let again = 2; result.isLate && again > 0; again -= 1) {
      await this.clear(scenario);
      result = await play(scenario, context);
    }
    if (result.isLate) console.log(`FAILED ${scenario.name}: it was late each time`);
    if (result.failure) await this.failed(scenario);
    await this.clear(scenario);
    if (result.isOverdue && this.unsteady < MOST_UNSTEADY) {
      this.unsteady += 1;
      const second = await play(scenario, context);
      if (second.failure) await this.failed(scenario);
      await this.clear(scenario);
      result = second.failure ? second : { ...second, unsteady: result.failure };
      if (result.unsteady) console.log(`UNSTEADY ${scenario.name}: it failed once, and not again`);
    }
    this.results.push(result);
  }

  // Of a claim beside the scenarios.
  fails(name, failure) {
    this.results.push({ name, failure });
  }

  summary() {
    const count = (is) => this.results.filter(is).length;
    const failed = count((result) => result.failure);
    return { failed, text: `${this.results.length - failed} passed, ${failed} failed, ${count((result) => result.unsteady)} of the passed only when played again` };
  }
}
