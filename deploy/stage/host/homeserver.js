// The client-server API for one session.

export const CLIENT = '/_matrix/client/v3';
export const UNSTABLE = '/_matrix/client/unstable';

export class Homeserver {
  constructor(session) {
    Object.assign(this, { session, transactions: 0, started: Date.now() });
  }

  async call(method, path, body, signal) {
    const response = await fetch(this.session.homeserver + path, {
      method, signal,
      headers: { authorization: `Bearer ${this.session.token}`, 'content-type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    throw Object.assign(new Error(`${method} ${path.split('?')[0]}: ${response.status}`), { status: response.status, answer });
  }

  transaction() {
    this.transactions += 1;
    return `${this.started}.${this.transactions}`;
  }
}
