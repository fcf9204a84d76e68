--
-- Templates: syntax, values, errors
--
SET client_encoding = 'UTF8';
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_uncache;
RESET client_min_messages;

CREATE SCHEMA template_test;
SET search_path = template_test, public;

CREATE DOMAIN email AS text CHECK (VALUE ~ '@');
CREATE DOMAIN tags AS text[];
CREATE TYPE mood AS ENUM ('sad', 'very happy');
CREATE TYPE pair AS (a int, b text);
CREATE TABLE item (
	id int,
	small int2,
	big int8,
	flag bool,
	token uuid,
	name text,
	short varchar(10),
	fixed char(4),
	mail email,
	tags tags,
	numbers int[],
	amount numeric(10, 2),
	ratio float8,
	day date,
	at timestamptz,
	span interval,
	raw bytea,
	data jsonb,
	feeling mood,
	both_ pair,
	"user" text,
	"Odd ""name}" text,
	price money,
	doubled int GENERATED ALWAYS AS (id * 2) STORED
);
INSERT INTO item VALUES (-42, 7, 9223372036854775807, true,
	'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'Ann: {x}', 'sh', 'fi', 'A@B.c',
	'{red,NULL,"light blue"}', '{{1,2},{3,4}}', 12.50, 0.1::float8 + 0.2, '2024-02-29',
	'2024-03-31 02:30:00+02', '1 day 02:03:04', '\xdeadBEEF', '{"sku": "A-1", "n": [1, 2]}',
	'very happy', '(1,x)', 'u', 'odd', 12.34, DEFAULT);

CREATE FUNCTION keys(template text) RETURNS text[] LANGUAGE sql AS
	'SELECT uncache.render($1, i) FROM item i';

-- Values
SELECT t, keys(t) FROM unnest(ARRAY[
	'i:{id}', 'i:{small}:{big}', 'i:{flag}', 'i:{token}', 'i:{name}', 'i:{short}|{fixed}|',
	'i:{mail}', 'i:{lower(mail)}', 'i:{tags}', 'i:{numbers}', 'i:{amount}', 'i:{ratio}',
	'i:{day}', 'i:{at}', 'i:{span}', 'i:{raw}', 'i:{data->>''sku''}', 'i:{data}', 'i:{feeling}',
	'i:{both_}', 'i:{(both_).b}', 'i:{"user"}', 'i:{"Odd ""name}"}', 'i:{price}', 'i:{doubled}',
	'i:{item.id}', 'i:{ID}', 'i:{"id"}', 'i:{ id }', 'i:{tableoid::regclass}', '{id}',
	'{{{id}}}', 'cart:{{{id}}}:x', 'a{{b}}c', 'no column']) t;

-- Braces in SQL's quotes and comments belong to the expression
SELECT t, keys(t) FROM unnest(ARRAY[
	'q:{''}''}', 'q:{''it''''s }''}', 'q:{E''\''}''}', 'q:{$$}$$}', 'q:{$a$}$$}$a$}',
	'q:{id /* } /* { */ } */}', E'q:{id -- }\n}', 'q:{name || ''{''}', 'q:{U&''\007D''}',
	'q:{id::text || ''E'' || ''}''}', 'q:{ARRAY[''}'', ''{'']}']) t;

-- Arrays: one key per element, every combination; NULL and empty: none
SELECT keys('t:{tags}:{numbers}');
SELECT keys('t:{ARRAY[]::int[]}'), keys('t:{NULL::text}'), keys('t:{tags}:{NULL::int[]}'),
	keys('t:{ARRAY[NULL]::int[]}');
SELECT array_length(keys('t:{array_fill(1, ARRAY[100])}:{array_fill(2, ARRAY[100])}'), 1);
SELECT keys('t:{array_fill(1, ARRAY[100])}:{array_fill(2, ARRAY[101])}');
SELECT keys('t:{array_fill(1, ARRAY[1000000])}');

-- Rows that are none
SELECT uncache.render('i:{id}', NULL::item) IS NULL AS null_row;
SELECT uncache.render('i:{a}', ROW(1, 'x')::pair);
SELECT uncache.render('i:{f1}', ROW(1, 'x'));
SELECT uncache.render('i:{id}', 42);

-- The prefix goes before every key
SET uncache.key_prefix = 'app:{x}:';
SELECT keys('i:{id}');
RESET uncache.key_prefix;

-- Limits
SELECT length((keys('{repeat(''x'', 65536)}'))[1]);
SELECT keys('{repeat(''x'', 65537)}');
SELECT keys('{name}{repeat(''x'', 1000000)}');

-- Errors name template, position and table
SELECT keys('');
SELECT keys('i:{idd}');
SELECT keys('i:{"ODD ""name}"}');
SELECT keys('i:{x.id}');
SELECT keys('i:{completely_different}');
SELECT uncache.render('i:{z}', ROW(1, 'x')::pair);
SELECT keys('i:{id');
SELECT keys('i:id}');
SELECT keys('ä:{id}}');
SELECT keys('i:{{{id}');
SELECT keys('i:{}');
SELECT keys('i:{  }');
SELECT keys('i:{a{b}}');
SELECT keys('i:{''}');
SELECT keys('i:{id +}');
SELECT keys('i:{id} and {id, name}');
SELECT keys('i:{id name}');
SELECT keys('i:{id FROM item}');
SELECT keys('i:{*}');
SELECT keys('i:{item.*}');
SELECT keys('i:{user}');
SELECT keys('i:{ USER }');
SELECT keys('i:{$1}');
SELECT keys('i:{(SELECT 1)}');
SELECT keys('i:{CASE WHEN EXISTS (SELECT 1 FROM nowhere) THEN 1 END}');
SELECT keys('i:{count(*)}');
SELECT keys('i:{row_number() OVER ()}');
SELECT keys('i:{generate_series(1, id)}');
SELECT keys('i:{random()}');
SELECT keys('i:{id / 0}');
SELECT keys('i:{ctid}');
SELECT keys('i:{xmin}');

-- Functions of users: STABLE and IMMUTABLE, volatile by declaration refused
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION sloppy(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2';
CREATE FUNCTION path_now() RETURNS text LANGUAGE sql STABLE AS
	'SELECT current_setting(''search_path'')';
SELECT keys('i:{template_test.twice(id)}');
SELECT keys('i:{template_test.sloppy(id)}');
SELECT keys('i:{template_test.path_now()}');

-- No session can change a key's text, and it gets its settings back
CREATE TABLE texts AS SELECT t, keys(t) AS k FROM unnest(ARRAY[
	'k:{at}', 'k:{day}', 'k:{span}', 'k:{ratio}', 'k:{raw}', 'k:{price}', 'k:{at::date}',
	'k:{at::text}', 'k:{to_char(at, ''TMMon HH24 TZ'')}', 'k:{tableoid::regclass}',
	'k:{quote_ident(short)}', 'k:{''\''}', 'k:{both_}', 'k:{ARRAY[at]}', 'k:{(0.1::float8 + 0.2)::text}',
	'k:{1.0 / 3 + ratio}', 'k:{coalesce(NULL, id) = NULL}', 'k:{to_tsvector(''Running'')}',
	'k:{extract(month from age(at, timestamptz ''2020-02-29 20:00+00''))}', 'k:{E''it\''s''}']) t;
SELECT * FROM texts;
SET TimeZone = 'Asia/Kolkata'; SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'iso_8601';
SET extra_float_digits = -5; SET bytea_output = 'escape'; SET lc_monetary = 'C';
SET search_path = template_test, pg_temp; SET client_encoding = 'LATIN1';
SET quote_all_identifiers = on; SET transform_null_equals = on;
SET default_text_search_config = 'pg_catalog.english'; SET backslash_quote = off;
-- No longer to be had since 19
DO $$ BEGIN SET standard_conforming_strings = off; EXCEPTION WHEN OTHERS THEN NULL; END $$;
SELECT t, k, keys(t) AS otherwise FROM texts WHERE keys(t) IS DISTINCT FROM k;
SELECT current_setting('TimeZone'), current_setting('DateStyle'), current_setting('IntervalStyle'),
	current_setting('extra_float_digits'), current_setting('bytea_output'), current_setting('search_path');
SELECT keys('k:{at}:{1 / (id + 42)}');
SELECT current_setting('TimeZone'), current_setting('search_path');
RESET ALL;
SET client_encoding = 'UTF8'; SET search_path = template_test, public;

-- Long ones: what they are made of costs time in proportion, up to a limit
SELECT length(k[1]) FROM keys(repeat('x', 8000) || ':{id}') k;
SELECT length(k[1]) FROM keys(repeat('{{a}}', 13000)) k;
SELECT length(k[1]) FROM keys(repeat('a{id}', 13000)) k;
SELECT keys(repeat('a{id}', 13000) || '{nosuch}');
SELECT keys(repeat('é', 32000) || '{');
SELECT keys(repeat('é', 160000));
SELECT uncache.attach('item', repeat('x', 160000));
-- and they can be interrupted
SET statement_timeout = '1ms';
SELECT keys(repeat('a{id+id}', 8000));
RESET statement_timeout;

\set VERBOSITY terse
DROP SCHEMA template_test CASCADE;
