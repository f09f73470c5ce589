#!/usr/bin/env node
/** Runs the bridge. Settings: environment variables, listed in README.md. */

import { createServer } from 'node:http';
import { bridge } from './bridge.mjs';

const listed = (name) => (process.env[name] ?? '').split(',').map((one) => one.trim()).filter((one) => one !== '');
const { ROOMCAST_GATEWAY: gateway, ROOMCAST_SOCKETIO_LISTEN: listen = '127.0.0.1:8083' } = process.env;
const rooms = listed('ROOMCAST_SOCKETIO_ROOMS');
const [, host, port] = /^(.+):(\d+)$/.exec(listen) ?? [];
if (!URL.canParse(gateway ?? '') || rooms.length === 0 || port === undefined) {
  console.error('ROOMCAST_GATEWAY: the address of a gateway; ROOMCAST_SOCKETIO_ROOMS: rooms, separated by commas; ROOMCAST_SOCKETIO_LISTEN: host:port');
  process.exit(64);
}
const server = createServer((_, answer) => answer.writeHead(404).end());
const io = bridge(server, { gateway, rooms, origins: listed('ROOMCAST_SOCKETIO_ORIGINS') });
server.listen(Number(port), host, () => console.log(`Socket.IO on http://${host}:${server.address().port}`));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => io.close());
