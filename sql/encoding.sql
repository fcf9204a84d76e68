--
-- Keys leave in UTF-8 whatever the encodings of database and client are
--
CREATE DATABASE regress_uncache_latin1 TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_uncache_latin1
SET client_encoding = 'UTF8';
CREATE EXTENSION pg_uncache;
CREATE TABLE city (name text);
SELECT uncache.attach('city', 'Stadt-ä:{name}');
SET client_encoding = 'LATIN1';
INSERT INTO city VALUES (convert_from('\x4bf66c6e', 'LATIN1'));	-- Köln
SET client_encoding = 'UTF8';
TRUNCATE city;
SELECT count(*) AS with_key FROM
	(SELECT items FROM uncache.outbox_0 UNION ALL SELECT items FROM uncache.outbox_1
	 UNION ALL SELECT items FROM uncache.outbox_2 UNION ALL SELECT items FROM uncache.outbox_3) o
	WHERE position(convert_to('Stadt-ä:Köln', 'UTF8') IN items) > 0;
SELECT count(*) AS with_pattern FROM
	(SELECT items FROM uncache.outbox_0 UNION ALL SELECT items FROM uncache.outbox_1
	 UNION ALL SELECT items FROM uncache.outbox_2 UNION ALL SELECT items FROM uncache.outbox_3) o
	WHERE position(convert_to('Stadt-ä:{any}', 'UTF8') IN items) > 0;
INSERT INTO city VALUES ('Köln');
SELECT uncache.render('Stadt-ä:{name}', c) FROM city c;
SELECT uncache.wait('1 min');
\c postgres
DROP DATABASE regress_uncache_latin1 WITH (FORCE);

-- In SQL_ASCII bytes go as they are
CREATE DATABASE regress_uncache_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_uncache_ascii
SET client_encoding = 'SQL_ASCII';
CREATE EXTENSION pg_uncache;
CREATE TABLE city (name text);
SELECT uncache.attach('city', 'city:{name}');
BEGIN;
INSERT INTO city VALUES (E'K\xf6ln');
SELECT uncache.invalidate_keys(E'\xff');
SELECT encode(key::bytea, 'escape') FROM uncache.transaction_keys();
SELECT encode((uncache.render('{name}', c))[1]::bytea, 'escape') FROM city c;
COMMIT;
SELECT uncache.wait('1 min');
\c postgres
DROP DATABASE regress_uncache_ascii WITH (FORCE);
