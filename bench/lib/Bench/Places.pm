# Places.pm: what a write costs where servers usually stand: a WAL flush takes longer than
# on this machine, and Redis is on another one.

package Bench::Places;

use strict;
use warnings;

use Bench::Lanes;
use Bench::Load;
use Bench::Network;
use Bench::Report;
use Bench::Stats;

# Microseconds that a flush takes more: commit_delay, with which a backend sleeps before it
# flushes, as a slower disk would let it wait; those who come meanwhile share the flush.
my $flush_us = 1000;

# Each way; so Redis is 0.25 ms away and back.
my $network_us = 125;

my @places = (
	{ id => 'flush', title => 'a WAL flush takes 1 ms more', flush => 1 },
	{ id => 'distance', title => 'Redis is 0.25 ms away', network => 1 },
	{ id => 'both', title => 'a WAL flush takes 1 ms more, Redis is 0.25 ms away', flush => 1,
		network => 1 },
);

my @lanes = qw(none c_noop eventual eventual_fenced ryw fenced strict strict_once direct app
  app_unlink app_ryw);

# Lane, and what its throughput is divided by.
my @pairs = (
	[ 'eventual', 'none' ], [ 'ryw', 'none' ], [ 'direct', 'none' ], [ 'app_unlink', 'app' ],
	[ 'eventual', 'c_noop' ], [ 'ryw', 'c_noop' ],
	[ 'app_ryw', 'app_unlink' ], [ 'ryw', 'direct' ],
	[ 'eventual_fenced', 'eventual' ], [ 'fenced', 'ryw' ],
	[ 'strict', 'ryw' ], [ 'strict_once', 'ryw' ],
);

sub _lanes
{
	my ($bench) = @_;
	my %wanted = map { $_ => 1 } @{ $bench->{lanes} };
	my %here = map { $_ => 1 } @lanes;

	return grep { $here{ $_->{id} } && !$_->{missing} && (!%wanted || $wanted{ $_->{id} }) }
	  Bench::Lanes::all();
}

sub _table
{
	my ($report, $place, @clients) = @_;
	my @rows;

	foreach my $pair (@pairs)
	{
		my ($lane, $base) = @$pair;
		my @cells = map {
			Bench::Report::spread('%.2f',
				$report->ratios('places', "$place->{id}-$_", $lane, $base, 'tps'))
		} @clients;

		push @rows, [ "$lane / $base", @cells ] if grep { $_ ne '-' } @cells;
	}
	$report->table("UPDATE of one row where $place->{title}\n"
		  . 'Ratios of TPS in each round: median and quartiles.',
		[ 'lanes', map { "$_ client" . ($_ > 1 ? 's' : '') } @clients ], @rows);
	return;
}

sub _measure
{
	my ($bench, $place) = @_;
	my @lanes = _lanes($bench);

	foreach my $clients (@{ $bench->{places_clients} })
	{
		my $rounds = $clients == $bench->{places_clients}[0] ? $bench->{rounds} : $bench->{few};

		Bench::Load::rounds($bench, 'places', "$place->{id}-$clients", $rounds, \@lanes,
			'update', $clients, $bench->{brief});
	}
	_table($bench->{report}, $place, @{ $bench->{places_clients} });
	return;
}

sub _set_flush
{
	my ($session, $us) = @_;

	$session->set_for_all('commit_siblings', $us ? 0 : 5);
	$session->set_for_all('commit_delay', $us);
	$session->await('SHOW commit_delay', $us);
	return;
}

sub run
{
	my ($bench) = @_;
	my $session = $bench->{session};

	foreach my $place (@places)
	{
		_set_flush($session, $place->{flush} ? $flush_us : 0);
		if ($place->{network})
		{
			my $port = free_port();
			local $Bench::Lanes::delayed_port = $port;

			with_network($session, $port, $network_us, sub { _measure($bench, $place) });
		}
		else { _measure($bench, $place) }
	}
	_set_flush($session, 0);
	return;
}

1;
