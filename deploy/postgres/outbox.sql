-- The advised way to publish from a database: insert a row in the same transaction as your own changes.
--   INSERT INTO roomcast_outbox (type, room, audience, data)
--   VALUES ('order:placed', 'orders', 'staff', jsonb_build_object('id', 42, 'total', '19.90'));
-- The event's id is made of the row's number, so a row is published once, also after a fail-over that loses the replication slot:
-- the rows that were not published are then read from this table. Keep them for as long as a fail-over may go unnoticed, e.g.
--   DELETE FROM roomcast_outbox WHERE created_at < now() - interval '7 days';
CREATE TABLE roomcast_outbox (
  id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  type       text        NOT NULL,
  room       text        NOT NULL,
  audience   text        NOT NULL DEFAULT 'all',
  data       jsonb       NOT NULL,
  subject    text,
  priority   text        CHECK (priority IN ('critical', 'high', 'medium', 'low')),
  -- W3C trace context of the transaction, if it is traced: the event's trace then begins with it.
  traceparent text,
  created_at timestamptz NOT NULL DEFAULT now()
);
