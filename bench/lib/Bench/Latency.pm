# Latency.pm: from a commit being visible to Redis telling a subscriber that the key
# is gone; one client, and beside a load.

package Bench::Latency;

use strict;
use warnings;

use Bench::Lanes;
use Bench::Load;
use Bench::Report;
use Bench::Stats;

my @wanted = qw(eventual ryw fenced app_unlink);

# Microseconds: commit to deleted, and round trips of PING in between.
sub _measure
{
	my ($lane, $times) = @_;
	my @command = ('./client', 'latency', $times, $Bench::Load::ROWS, $ENV{REDIS_SOCKET});
	my (@gone, @ping);

	push @command, 'delete' if $lane->{client};
	local $ENV{PGDATABASE} = 'bench';
	local $ENV{PGOPTIONS} = $lane->{settings} ? "-c $lane->{settings}" : '';
	open my $in, '-|', @command or die "client: $!";
	while (<$in>)
	{
		my ($gone, $ping) = split;
		push @gone, $gone;
		push @ping, $ping;
	}
	close $in or die 'client failed';
	return (\@gone, \@ping);
}

# The same with writers of other keys beside it.
sub _measure_under_load
{
	my ($lane, $times) = @_;
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		$ENV{PGOPTIONS} = "-c $lane->{settings}" if $lane->{settings};
		open STDOUT, '>', '/dev/null';
		open STDERR, '>', '/dev/null';
		exec 'pgbench', '-n', '-c', 8, '-j', 2, '-T', 60, '-f', "$ENV{PRIVATE}/update.sql", 'bench';
	}
	sleep 1;
	my @figures = _measure($lane, $times);
	kill 'TERM', $pid;
	waitpid $pid, 0;
	return @figures;
}

sub run
{
	my ($bench) = @_;
	my $report = $bench->{report};
	my @rows = [ 'microseconds, median of the rounds', 'p50', 'p99', 'p99.9', 'PING p50', 'p50 / PING', 'p99 / PING' ];

	foreach my $case (qw(alone loaded))
	{
		my @lanes = grep { my $lane = $_; grep { $lane->{id} eq $_ } @wanted } Bench::Lanes::all();

		foreach my $round (0 .. $bench->{rounds} - 1)
		{
			foreach my $lane (@lanes)
			{
				Bench::Lanes::enter($bench->{session}, $lane, 'bench.item', 'id');
				my ($gone, $ping) = $case eq 'alone' ? _measure($lane, 1000) : _measure_under_load($lane, 500);
				my %figures = (p50 => quantile(0.5, @$gone), p99 => quantile(0.99, @$gone),
					p999 => quantile(0.999, @$gone), ping => median(@$ping));

				$report->add('latency', $case, $lane->{id}, $round, $_, $figures{$_}) foreach sort keys %figures;
			}
		}
		foreach my $lane (@lanes)
		{
			my %median = map { $_ => $report->median_of('latency', $case, $lane->{id}, $_) } qw(p50 p99 p999 ping);

			push @rows, [ "$lane->{label}, " . ($case eq 'alone' ? 'one client' : 'beside 8 writers'),
				(map { sprintf '%.0f', $median{$_} } qw(p50 p99 p999 ping)),
				(map { sprintf '%.1f', $median{$_} / $median{ping} } qw(p50 p99)) ];
		}
	}
	$report->table('Commit to deleted, as a subscriber of Redis sees it', @rows);
	return;
}

1;
