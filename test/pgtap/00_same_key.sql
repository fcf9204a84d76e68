-- The same row gives the same key, whatever the session is set to.

\set QUIET on
\pset format unaligned
\pset tuples_only on
SET client_min_messages = warning;

BEGIN;
SELECT plan(10);

CREATE TABLE public.odd (
	id int PRIMARY KEY,
	at timestamptz,
	day date,
	wait interval,
	ratio float8,
	raw bytea,
	name text,
	kind regclass
);
INSERT INTO public.odd VALUES (1, '2024-02-29 23:30:00+00', '2024-02-29', '1 day 02:00:00', 0.1::float8 + 0.2,
	'\xdeadbeef', U&'Z\00fcrich', 'public.odd');
SELECT uncache.attach('public.odd', 'k:{id}:{at}:{day}:{wait}:{ratio}:{raw}:{name}:{kind}',
	'e:{date_trunc(''day'', at)}:{lower(name)}');

CREATE FUNCTION public.keys_of_change() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	keys text;
BEGIN
	BEGIN
		UPDATE public.odd SET id = id + 0, name = name || '.' WHERE id = 1;
		SELECT string_agg(key, ' ' ORDER BY key) INTO keys
		FROM uncache.transaction_keys();
		RAISE EXCEPTION USING errcode = 'UU001', message = keys;
	EXCEPTION WHEN SQLSTATE 'UU001' THEN
		RETURN SQLERRM;
	END;
END
$$;

-- What it has to be, spelled out by hand.
SELECT is(public.keys_of_change(), concat_ws(' ',
	U&'e:2024-02-29 00:00:00+00:z\00fcrich',
	U&'e:2024-02-29 00:00:00+00:z\00fcrich.',
	U&'k:1:2024-02-29 23:30:00+00:2024-02-29:1 day 02:00:00:0.30000000000000004:\\xdeadbeef:Z\00fcrich.:public.odd',
	U&'k:1:2024-02-29 23:30:00+00:2024-02-29:1 day 02:00:00:0.30000000000000004:\\xdeadbeef:Z\00fcrich:public.odd'),
	'the keys have the fixed form');

SELECT public.keys_of_change() AS expected \gset

SET LOCAL TimeZone = 'Asia/Tokyo';
SELECT is(public.keys_of_change(), :'expected', 'TimeZone');
SET LOCAL DateStyle = 'German, DMY';
SELECT is(public.keys_of_change(), :'expected', 'DateStyle');
SET LOCAL IntervalStyle = 'iso_8601';
SELECT is(public.keys_of_change(), :'expected', 'IntervalStyle');
SET LOCAL extra_float_digits = -10;
SELECT is(public.keys_of_change(), :'expected', 'extra_float_digits');
SET LOCAL bytea_output = 'escape';
SELECT is(public.keys_of_change(), :'expected', 'bytea_output');
-- The functions of pgTAP are in public; what changes is what comes first.
CREATE SCHEMA trap;
CREATE FUNCTION trap.lower(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'trapped' $$;
CREATE FUNCTION trap.date_trunc(text, timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$ SELECT 'epoch'::timestamptz $$;
SET LOCAL search_path = trap, public, pg_catalog;
SELECT is(public.keys_of_change(), :'expected', 'search_path');
SELECT is((uncache.render('{kind}', odd))[1], 'public.odd', 'render does not depend on search_path') FROM public.odd;
SET LOCAL search_path = public;
SET LOCAL client_encoding = 'LATIN1';
SELECT is(octet_length(convert_to((uncache.render('{name}', odd))[1], 'UTF8')), 7, 'client_encoding') FROM public.odd;
SET LOCAL client_encoding = 'UTF8';
SET LOCAL uncache.key_prefix = 'p:';
SELECT is((uncache.render('{id}', odd))[1], 'p:1', 'only key_prefix is meant to') FROM public.odd;

SELECT * FROM finish();
ROLLBACK;
