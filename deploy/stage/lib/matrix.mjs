// What is said to a homeserver in the name of a user.
import crypto from 'node:crypto';

const CLIENT = '/_matrix/client/v3';
export const MEMBER_STATE = 'org.matrix.msc3401.call.member';
export const MEMBER_STICKY = 'org.matrix.msc4143.rtc.member';

export async function call(homeserver, method, path, { token, body } = {}) {
  const response = await fetch(homeserver.url + path, {
    method,
    headers: { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(60000),
  });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const error = new Error(`${method} ${path.split('?')[0]}: ${response.status} ${JSON.stringify(answer)}`);
  throw Object.assign(error, { status: response.status, errcode: answer.errcode });
}

export class User {
  // A new account with a device.
  static async register(homeserver, localpart, displayName) {
    const path = '/_synapse/admin/v1/register';
    const { nonce } = await call(homeserver, 'GET', path);
    const password = crypto.randomBytes(16).toString('hex');
    const mac = crypto.createHmac('sha1', homeserver.secret)
      .update([nonce, localpart, password, 'notadmin'].join('\0')).digest('hex');
    const body = { nonce, username: localpart, password, admin: false, mac };
    const { user_id: id, device_id: device, access_token: token } = await call(homeserver, 'POST', path, { body });
    const user = new User(homeserver, { id, device, token, password, name: displayName });
    await user.call('PUT', `${CLIENT}/profile/${encodeURIComponent(id)}/displayname`, { displayname: displayName });
    return user;
  }

  constructor(homeserver, { id, device, token, password, name }) {
    Object.assign(this, { homeserver, id, device, token, password, name, positions: new Map(), calls: new Map() });
  }

  call(method, path, body) {
    return call(this.homeserver, method, path, { token: this.token, body });
  }

  // An encrypted room in which everybody may call.
  async createRoom(name, invited) {
    const { room_id: room } = await this.call('POST', `${CLIENT}/createRoom`, {
      preset: 'private_chat', name, invite: invited.map((user) => user.id),
      initial_state: [{ type: 'm.room.encryption', state_key: '', content: { algorithm: 'm.megolm.v1.aes-sha2' } }],
      power_level_content_override: { events: { [MEMBER_STATE]: 0 } },
    });
    return room;
  }

  join(room, through) {
    return this.call('POST', `${CLIENT}/join/${encodeURIComponent(room)}?server_name=${encodeURIComponent(through.serverName)}`, {});
  }

  kick(room, user) {
    return this.call('POST', `${CLIENT}/rooms/${encodeURIComponent(room)}/kick`, { user_id: user.id });
  }

  ban(room, user) {
    return this.call('POST', `${CLIENT}/rooms/${encodeURIComponent(room)}/ban`, { user_id: user.id });
  }

  leave(room) {
    return this.call('POST', `${CLIENT}/rooms/${encodeURIComponent(room)}/leave`, {});
  }

  invite(room, user) {
    return this.call('POST', `${CLIENT}/rooms/${encodeURIComponent(room)}/invite`, { user_id: user.id });
  }

  // The state event that says what somebody is to the room, as a whole.
  memberEvent(room, user) {
    const state = `${CLIENT}/rooms/${encodeURIComponent(room)}/state/m.room.member/${encodeURIComponent(user.id)}`;
    return this.call('GET', `${state}?format=event`);
  }

  openId() {
    return this.call('POST', `${CLIENT}/user/${encodeURIComponent(this.id)}/openid/request_token`, {});
  }

  // A token of another device: whoever follows a room with that of the client takes away what is sent to the client.
  async watcher() {
    this.watching ??= (await call(this.homeserver, 'POST', `${CLIENT}/login`, {
      body: { type: 'm.login.password', identifier: { type: 'm.id.user', user: this.id }, password: this.password, device_id: 'WATCHER' },
    })).access_token;
    return this.watching;
  }

  // The room's changes since the last time, waiting for them so long; all of it the first time.
  async changes(room, wait = 0) {
    const token = await this.watcher();
    const filter = encodeURIComponent(JSON.stringify({ room: { rooms: [room], timeline: { limit: 50 } } }));
    const since = this.positions.get(room);
    const position = since ? `&since=${since}&timeout=${wait}` : '';
    const answer = await call(this.homeserver, 'GET', `${CLIENT}/sync?filter=${filter}${position}`, { token });
    this.positions.set(room, answer.next_batch);
    return answer.rooms?.join?.[room] ?? {};
  }

  // Ids of the users who are in the room's call as this user's homeserver sees it.
  async callMembers(room, wait = 0) {
    if (!this.calls.has(room)) this.calls.set(room, new Members());
    const members = this.calls.get(room);
    members.take(await this.changes(room, wait));
    return members.users();
  }
}

// Who is in a call, from what /sync says of its room; both forms of membership.
export class Members {
  constructor() {
    this.present = new Map();
  }

  take(changes) {
    // A sticky event that stands in the timeline is not said again among the sticky ones.
    const events = [
      ...(changes.state?.events ?? []), ...(changes.msc4354_sticky?.events ?? []), ...(changes.timeline?.events ?? []),
    ];
    for (const event of events.sort((a, b) => a.origin_server_ts - b.origin_server_ts)) {
      if (event.type === MEMBER_STATE && event.state_key !== undefined) {
        this.set(event.state_key, event.sender, event.content.application !== undefined);
      } else if (event.type === MEMBER_STICKY) {
        this.set(event.content.msc4354_sticky_key, event.sender, event.content.member !== undefined);
      }
    }
  }

  set(key, user, present) {
    if (present) this.present.set(key, user);
    else this.present.delete(key);
  }

  users() {
    return [...new Set(this.present.values())].sort();
  }
}
