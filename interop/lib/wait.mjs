// Waiting for what must come, and saying what was there instead.

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Until `check` is truthy; its value. Deadlines are generous: they only end what would never come.
export async function settle(what, check, deadline = 30000) {
  const end = Date.now() + deadline;
  let last;
  for (;;) {
    try {
      last = await check();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) {
      throw new Overdue(`${what}: not within ${deadline / 1000} s; last: ${last instanceof Error ? last.message : JSON.stringify(last)}`);
    }
    await sleep(50);
  }
}

export function expect(condition, what) {
  if (!condition) throw new Error(what);
}

// What was waited for did not come. A claim that does not hold is another matter: it is a plain error.
export class Overdue extends Error {}

// A claim about time that did not hold.
export class Late extends Error {}

export function inTime(what, took, most) {
  if (!(took < most)) throw new Late(`${what}: ${took} ms, which is not within ${most}`);
}
