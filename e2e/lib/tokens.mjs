// Who gets a token, whether it is good, and calls of clients that obey nobody but the focus.
import { Clients } from '../../interop/lib/clients.mjs';
import { expect } from '../../interop/lib/wait.mjs';

// Asks the focus at home for a token.
export async function ask(world, user, room) {
  const body = { room, device_id: user.device, openid_token: await user.openId() };
  const response = await fetch(`${world.foci.a.service}/sfu/get`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
  });
  return { status: response.status, ...await response.json() };
}

export async function token(world, user, room) {
  const answer = await ask(world, user, room);
  expect(answer.jwt, `${user.name} gets a token: ${JSON.stringify(answer)}`);
  return answer;
}

// What the focus says of a token without letting anybody in.
export async function verdict({ url, jwt }) {
  return (await fetch(`${url.replace('ws:', 'http:')}/rtc/validate?access_token=${jwt}`)).status;
}

// Two people in a call with clients that obey nobody but the focus. They are ended however the scenario ends.
export async function withCall(world, run) {
  const clients = new Clients(undefined, undefined, {});
  const alice = await world.user('Alice');
  const bob = await world.user('Bob');
  const room = await world.room([alice, bob]);
  const join = async (user, { url, jwt } = {}) => {
    const client = await clients.create('node');
    client.identity = `${user.id}:${user.device}`;
    const given = jwt ? { url, jwt } : await token(world, user, room);
    await client.do('connect', { url: given.url, token: given.jwt });
    await client.do('publish', { source: 'microphone' });
    return Object.assign(client, { given });
  };
  try {
    await run({ alice, bob, room, join });
  } finally {
    await clients.closeAll();
  }
}

// When the homeserver had it that somebody is out, by its clock, which is ours.
export async function removedAt(by, room, user) {
  const { origin_server_ts: at } = await by.memberEvent(room, user);
  return at;
}
