-- For a new data folder: the extension, and a table with a rule to play with.
CREATE EXTENSION pg_uncache;
CREATE TABLE users (id int PRIMARY KEY, name text);
INSERT INTO users VALUES (1, 'one');
SELECT uncache.attach('users', 'user:{id}');
