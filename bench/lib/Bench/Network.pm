# Network.pm: a network between Redis and everybody who speaks to it, see delay.c.

package Bench::Network;

use strict;
use warnings;

use Exporter 'import';
use IO::Socket::INET;

our @EXPORT = qw(use_url with_network free_port);

sub free_port
{
	return IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1)->sockport;
}

# The worker goes there from now on.
sub use_url
{
	my ($session, $url) = @_;

	$session->set_for_all('uncache.redis_url', $url);
	$session->await("SELECT redis = '$url' AND state = 'connected' FROM uncache.stat", 't');
	return;
}

# with_network(SESSION, WHERE, MICROSECONDS, CODE): run CODE while the worker finds Redis at
# WHERE, a path or a port of the loopback, so much further away in each direction.
sub with_network
{
	my ($session, $where, $delay, $code) = @_;
	my $pid = open my $out, '-|', './delay', $where, $ENV{REDIS_SOCKET}, $delay
	  or die "delay: $!";

	readline $out;
	my $done = eval {
		use_url($session, $where =~ /\D/ ? "unix://$where" : "redis://127.0.0.1:$where/0");
		$code->();
		use_url($session, "redis://127.0.0.1:$ENV{REDIS_PORT}/0");
		1;
	};
	my $error = $@;
	# Whose end is waited for.
	kill 'TERM', $pid;
	close $out;
	die $error unless $done;
	return;
}

1;
