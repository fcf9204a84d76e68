-- What a user relies on, from SQL to the key in Redis.

\set QUIET on
\pset format unaligned
\pset tuples_only on
SET client_min_messages = warning;
SET uncache.wait_timeout = '10s';

CREATE EXTENSION IF NOT EXISTS file_fdw;
CREATE SERVER redis FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE redis_keys (key text) SERVER redis
	OPTIONS (program 'redis-cli $REDIS_OPTIONS --raw keys "tap:*"');
CREATE FUNCTION fill(VARIADIC keys text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	key text;
BEGIN
	FOREACH key IN ARRAY keys LOOP
		EXECUTE format('COPY (SELECT %L) TO PROGRAM %L', 'set ' || key || ' 1',
			'redis-cli $REDIS_OPTIONS >/dev/null');
	END LOOP;
END
$$;
-- Which keys are in Redis now.
CREATE FUNCTION cached() RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT coalesce(string_agg(key, ' ' ORDER BY key COLLATE "C"), '') FROM redis_keys
$$;

SELECT plan(24);

CREATE TABLE users (id int PRIMARY KEY, org_id int, email text, tags text[]);
CREATE TABLE posts (id int PRIMARY KEY, author int REFERENCES users ON DELETE CASCADE);
INSERT INTO users VALUES (1, 10, 'Ann@Example.com', '{a,b}'), (2, 10, NULL, '{}'), (3, 11, 'c', NULL);
INSERT INTO posts VALUES (100, 1), (101, 1), (102, 2);
SELECT uncache.attach('users', 'tap:user:{id}', 'tap:mail:{lower(email)}', 'tap:tag:{tags}:{org_id}');
SELECT uncache.attach('posts', 'tap:post:{id}');
SELECT ok(uncache.wait('60 s'), 'what was written before is delivered');

CREATE FUNCTION asks_in_time() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	FOR attempt IN 1 .. 100 LOOP
		IF (SELECT bool_and(uncache.wait('0')) FROM generate_series(1, 2000)) THEN
			RETURN true;
		END IF;
		PERFORM pg_sleep(0.3);
	END LOOP;
	RETURN false;
END
$$;
SELECT ok(asks_in_time(), 'a timeout of 0 leaves the worker time to say so');

SELECT fill('tap:user:1', 'tap:user:2', 'tap:mail:ann@example.com', 'tap:tag:a:10', 'tap:tag:b:10', 'tap:tag:c:10');
UPDATE users SET email = email WHERE id IN (1, 2);
SELECT is(cached(), 'tap:mail:ann@example.com tap:tag:a:10 tap:tag:b:10 tap:tag:c:10 tap:user:1 tap:user:2',
	'an UPDATE that changes nothing deletes nothing');

UPDATE users SET tags = '{b,c}' WHERE id = 1;
SELECT is(cached(), 'tap:user:2', 'an array gives a key for each element, of the old row and of the new');

SELECT fill('tap:user:1', 'tap:mail:ann@example.com', 'tap:mail:bea@example.com');
BEGIN;
UPDATE users SET email = 'BEA@example.com' WHERE id = 1;
SELECT is(cached(), 'tap:mail:ann@example.com tap:mail:bea@example.com tap:user:1 tap:user:2',
	'before COMMIT everything is there');
COMMIT;
SELECT is(cached(), 'tap:user:2', 'after it the old and the new name are gone');

SELECT fill('tap:user:1', 'tap:post:100', 'tap:post:101', 'tap:post:102');
DELETE FROM users WHERE id = 1;
SELECT is(cached(), 'tap:post:102 tap:user:2', 'a cascade deletes the keys of the rows that it deletes');

INSERT INTO users VALUES (2, 12) ON CONFLICT (id) DO UPDATE SET org_id = 12;
SELECT is(cached(), 'tap:post:102', 'INSERT ON CONFLICT DO UPDATE counts');

SELECT fill('tap:user:2', 'tap:user:3', 'tap:user:4');
MERGE INTO users u USING (VALUES (3), (4)) v (id) ON u.id = v.id
	WHEN MATCHED THEN UPDATE SET org_id = 13 WHEN NOT MATCHED THEN INSERT VALUES (v.id);
SELECT is(cached(), 'tap:post:102 tap:user:2', 'MERGE counts');

SELECT fill('tap:user:7', 'tap:user:8');
COPY users (id) FROM stdin;
7
8
\.
SELECT is(cached(), 'tap:post:102 tap:user:2', 'COPY counts');

SELECT fill('tap:user:settings', 'tap:user:2:session', 'tap:user:77');
BEGIN;
TRUNCATE users CASCADE;
SELECT is(cached(), 'tap:post:102 tap:user:2 tap:user:2:session tap:user:77 tap:user:settings',
	'before COMMIT of a TRUNCATE everything is there');
COMMIT;
SELECT ok(uncache.wait('60 s'), 'patterns are waited for');
SELECT is(cached(), 'tap:user:2:session tap:user:settings', 'TRUNCATE takes the keys of its rules, cascades too, and no other');

SELECT fill('tap:x:1', 'tap:x:2', 'tap:x:3', 'tap:y:1');
BEGIN;
SELECT is(uncache.invalidate_keys('tap:x:1', 'tap:x:2', 'tap:x:1'), 2::bigint, 'literal keys: so many are new');
SELECT is(uncache.invalidate_keys('tap:x:2'), 0::bigint, 'and none the second time');
COMMIT;
SELECT is(cached(), 'tap:user:2:session tap:user:settings tap:x:3 tap:y:1', 'they are deleted');

SELECT uncache.invalidate_pattern('tap:[xy]:*');
SELECT uncache.wait('60 s');
SELECT is(cached(), 'tap:user:2:session tap:user:settings', 'a pattern deletes what it matches');

SELECT fill('tap:user:20', 'tap:user:21', 'tap:user:22');
CREATE TABLE seen (what text);
CREATE PROCEDURE in_steps() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO users (id) VALUES (20);
	COMMIT;
	INSERT INTO seen VALUES (cached());
	INSERT INTO users (id) VALUES (21);
	INSERT INTO seen VALUES ('never');
	ROLLBACK;
	INSERT INTO seen VALUES (cached());
	INSERT INTO users (id) VALUES (22);
END
$$;
CALL in_steps();
SELECT is(array_agg(what), ARRAY['tap:user:21 tap:user:22 tap:user:2:session tap:user:settings'],
	'a procedure with COMMIT and ROLLBACK inside deletes step by step') FROM seen;
SELECT is(cached(), 'tap:user:21 tap:user:2:session tap:user:settings', 'and exactly what was committed');

BEGIN TRANSACTION READ ONLY;
SELECT uncache.invalidate_keys('tap:user:21');
COMMIT;
SELECT is(cached(), 'tap:user:2:session tap:user:settings', 'a read-only transaction can delete keys');

SELECT fill('tap:user:30', 'tap:user:31', 'tap:user:32');
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO users (id) VALUES (30);
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO users (id) VALUES (31);
COMMIT;
SET uncache.consistency = eventual;
INSERT INTO users (id) VALUES (32);
SELECT ok(uncache.wait('60 s'), 'eventual is delivered, too');
RESET uncache.consistency;
SELECT is(cached(), 'tap:user:2:session tap:user:settings', 'under every isolation level');

SELECT fill('tap:user:40', 'tap:user:41');
DO $$
BEGIN
	BEGIN
		INSERT INTO users (id) VALUES (40);
		INSERT INTO users (id) VALUES (40);
	EXCEPTION WHEN unique_violation THEN
		INSERT INTO users (id) VALUES (41);
	END;
END
$$;
SELECT is(cached(), 'tap:user:2:session tap:user:40 tap:user:settings', 'a plpgsql block that failed deletes nothing, what its handler does counts');

SELECT uncache.detach('users');
SELECT fill('tap:user:41');
DELETE FROM users WHERE id = 41;
SELECT is(cached(), 'tap:user:2:session tap:user:40 tap:user:41 tap:user:settings', 'a table that is detached deletes nothing any more');

SELECT * FROM finish();
