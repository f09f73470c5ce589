-- The shop's tables. Nothing in them is Roomcast's.
CREATE TABLE tickets   (id text PRIMARY KEY, device text NOT NULL, fault text NOT NULL, status text NOT NULL);
CREATE TABLE orders    (id text PRIMARY KEY, ticket text NOT NULL, product text NOT NULL, quantity integer NOT NULL, total numeric(12, 2) NOT NULL);
CREATE TABLE customers (id text PRIMARY KEY, name text NOT NULL, email text NOT NULL, phone text NOT NULL);
CREATE TABLE products  (name text PRIMARY KEY, stock integer NOT NULL);

-- What following them takes: someone who may, what is published, and old values of tickets.
CREATE ROLE capture LOGIN REPLICATION;
GRANT SELECT ON tickets, orders, customers, products TO capture;
CREATE PUBLICATION roomcast FOR TABLE tickets, orders, customers, products;
ALTER TABLE tickets REPLICA IDENTITY FULL;
