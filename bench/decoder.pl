#!/usr/bin/perl
#
# decoder.pl: deletes keys as change data capture does: pg_recvlogical streams what
# wal2json makes of the WAL, and for each changed row of bench.item this sends UNLINK.
#
# The slot "bench" exists.  Runs until it is ended.

use strict;
use warnings;

use IO::Socket::INET;
use Socket qw(IPPROTO_TCP TCP_NODELAY);

my $redis = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
	PeerPort => $ENV{REDIS_PORT}) or die "Redis: $!";
setsockopt $redis, IPPROTO_TCP, TCP_NODELAY, 1 or die "Redis: $!";
my $stream = open my $changes, '-|', 'pg_recvlogical', '-d', 'bench', '--slot', 'bench',
	'--start', '--no-loop',
  '-o', 'format-version=2', '-o', 'add-tables=bench.item', '-f', '-' or die "pg_recvlogical: $!";

$SIG{TERM} = sub { kill 'TERM', $stream; waitpid $stream, 0; exit 0 };
while (my $change = <$changes>)
{
	my ($id) = $change =~ /"name":"id"[^{}]*?"value":(\d+)/ or next;

	syswrite $redis, "UNLINK item:$id\r\n";
	sysread $redis, my $answer, 100;
}
