// What Element Call asks of its host, asked of the homeserver.
import { WidgetDriver } from 'matrix-widget-api';
import { CLIENT, UNSTABLE } from './homeserver.js';

// The widget takes in its first state for about this long; sticky events that come before are judged without it.
const FIRST_STATE_MS = 300;
const encode = encodeURIComponent;

export class Driver extends WidgetDriver {
  constructor(homeserver, room) {
    super();
    Object.assign(this, { homeserver, room });
  }

  // Element Call is trusted: it is ours.
  async validateCapabilities(requested) { return requested; }

  async send(type, content, { stateKey, room, query } = {}) {
    const base = `${CLIENT}/rooms/${encode(room ?? this.room.id)}`;
    const isState = stateKey !== undefined && stateKey !== null;
    const path = isState ? `state/${encode(type)}/${encode(stateKey)}` : `send/${encode(type)}/${this.homeserver.transaction()}`;
    const parameters = query ? `?${new URLSearchParams(query)}` : '';
    const answer = await this.homeserver.call('PUT', `${base}/${path}${parameters}`, content);
    const roomId = room ?? this.room.id;
    // The library looks at which of the two there is.
    return answer.delay_id ? { roomId, delayId: answer.delay_id } : { roomId, eventId: answer.event_id };
  }

  sendEvent(type, content, stateKey = null, room = null) {
    return this.send(type, content, { stateKey, room });
  }

  sendStickyEvent(duration, type, content, room = null) {
    return this.send(type, content, { room, query: { 'org.matrix.msc4354.sticky_duration_ms': duration } });
  }

  sendDelayedEvent(delay, type, content, stateKey = null, room = null) {
    return this.send(type, content, { stateKey, room, query: { 'org.matrix.msc4140.delay': delay } });
  }

  sendDelayedStickyEvent(delay, duration, type, content, room = null) {
    const query = { 'org.matrix.msc4140.delay': delay, 'org.matrix.msc4354.sticky_duration_ms': duration };
    return this.send(type, content, { room, query });
  }

  async updateDelayed(id, action) {
    await this.homeserver.call('POST', `${UNSTABLE}/org.matrix.msc4140/delayed_events/${encode(id)}`, { action });
  }

  cancelScheduledDelayedEvent(id) { return this.updateDelayed(id, 'cancel'); }
  restartScheduledDelayedEvent(id) { return this.updateDelayed(id, 'restart'); }
  sendScheduledDelayedEvent(id) { return this.updateDelayed(id, 'send'); }

  async sendToDevice(type, encrypted, messages) {
    await this.homeserver.call('PUT', `${CLIENT}/sendToDevice/${encode(type)}/${this.homeserver.transaction()}`, { messages });
  }

  async readRoomTimeline(room, type, msgtype, stateKey, limit) {
    const filter = encode(JSON.stringify({ types: [type] }));
    const path = `${CLIENT}/rooms/${encode(room)}/messages?dir=b&limit=${limit || 25}&filter=${filter}`;
    const { chunk } = await this.homeserver.call('GET', path);
    return chunk.filter((event) => event.type === type && (stateKey === undefined || event.state_key === stateKey));
  }

  async readRoomState(room, type, key) {
    return this.room.stateOf(type, key);
  }

  async readStickyEvents() {
    await new Promise((done) => setTimeout(done, FIRST_STATE_MS));
    return [...this.room.sticky.values()];
  }

  async readEventRelations(id, room, relation, type) {
    const more = relation ? `/${encode(relation)}${type ? `/${encode(type)}` : ''}` : '';
    const path = `/_matrix/client/v1/rooms/${encode(room ?? this.room.id)}/relations/${encode(id)}${more}`;
    const { chunk, next_batch: nextBatch, prev_batch: prevBatch } = await this.homeserver.call('GET', path);
    return { chunk, nextBatch, prevBatch };
  }

  askOpenID(observer) {
    const path = `${CLIENT}/user/${encode(this.room.user)}/openid/request_token`;
    this.homeserver.call('POST', path, {}).then(
      (token) => observer.update({ state: 'allowed', token }),
      () => observer.update({ state: 'blocked' }),
    );
  }

  async getRtcTransports() {
    const { rtc_transports: transports } = await this.homeserver.call('GET', `${UNSTABLE}/org.matrix.msc4143/rtc/transports`);
    return { rtc_transports: transports ?? [] };
  }

  async *getTurnServers() {}
  async getMediaConfig() { return {}; }
  async searchUserDirectory() { return { limited: false, results: [] }; }
  async navigate() {}
  getKnownRooms() { return [this.room.id]; }

  processError(error) {
    if (!error?.status) return undefined;
    const response = error.answer ?? { errcode: 'M_UNKNOWN', error: error.message };
    return { matrix_api_error: { http_status: error.status, http_headers: {}, url: '', response } };
  }
}
