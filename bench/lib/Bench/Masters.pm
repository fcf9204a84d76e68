# Masters.pm: what the worker costs with many masters of a cluster, which masters.c plays.

package Bench::Masters;

use strict;
use warnings;

use IPC::Open2;
use Time::HiRes qw(sleep time);

use Bench::Cpu;
use Bench::Lanes;
use Bench::Load;
use Bench::Network;
use Bench::Report;

my @numbers = (10, 100, 1000);
my $idle_seconds = 5;

# Figure, what it is, unit and digits.
my @figures = (
	[ 'connect', 'until all are connected and fenced', 'ms', 0 ],
	[ 'memory', 'memory of the worker that is its own', 'kB', 0 ],
	[ 'files', 'file descriptors', '', 0 ],
	[ 'idle', 'CPU of an idle second', 'ms', 2 ],
	[ 'commit', 'CPU of the worker a commit, eventual', 'us', 1 ],
	[ 'waited', 'CPU of the worker a commit, read_your_writes', 'us', 1 ],
	[ 'pass', 'a pass for one pattern, with its epochs', 'ms', 0 ],
	[ 'pass_cpu', 'CPU of that', 'ms', 1 ],
	[ 'map', 'CPU of a changed map, with the idle seconds around', 'ms', 1 ],
);

sub _files
{
	my ($pid) = @_;
	my @files = glob "/proc/$pid/fd/*";
	return scalar @files;
}

# What CODE takes of the worker: milliseconds of CPU, and in all.
sub _cost
{
	my ($worker, $code) = @_;
	my ($cpu, $begin) = (Bench::Cpu::of_process($worker), time);

	$code->();
	return ((Bench::Cpu::of_process($worker) - $cpu) * 1000, (time - $begin) * 1000);
}

sub _measure
{
	my ($bench, $n, $begin, $move) = @_;
	my ($report, $session) = @{$bench}{qw(report session)};
	my ($worker, $idle) = $session->query('SELECT worker_pid FROM uncache.stat');
	my %lane = map { $_->{id} => $_ } Bench::Lanes::all();
	my $is = sub { $report->add('masters', $n, 'worker', 0, @_) };

	$is->('connect', (time - $begin) * 1000);
	$is->('memory', Bench::Cpu::own_memory($worker));
	$is->('files', _files($worker));
	($idle) = _cost($worker, sub { sleep $idle_seconds });
	$is->('idle', $idle / $idle_seconds);
	foreach my $case ([ commit => 'eventual_fenced' ], [ waited => 'fenced' ])
	{
		my $figures = Bench::Load::run($session, $lane{ $case->[1] }, 'update', 8,
			$bench->{seconds});

		$is->($case->[0], $figures->{cpu_worker});
	}
	my ($cpu, $took) = _cost($worker, sub {
		$session->query("SELECT uncache.invalidate_pattern('none:*')");
		$session->query("SELECT uncache.wait('60 s')");
	});
	$is->('pass', $took);
	$is->('pass_cpu', $cpu);
	($cpu) = _cost($worker, sub { $move->(); sleep $idle_seconds });
	$is->('map', $cpu - $idle);
	return;
}

sub _with_masters
{
	my ($bench, $n) = @_;
	my $session = $bench->{session};
	my $port = free_port();
	my $pid = open2(my $out, my $in, './masters', $n, $port);

	readline($out) // die "$n masters: they can't listen\n";
	my $done = eval {
		# What the outbox has would be sent to the masters before they are fenced.
		Bench::Lanes::set_fence($session, 1);
		Bench::Lanes::empty_outbox($session);
		my $begin = time;

		$session->set_for_all('uncache.redis_url', "redis+cluster://127.1.0.1:$port");
		$session->await("SELECT redis LIKE '%:$port%' AND state = 'connected' AND fence = 'on'
			FROM uncache.stat", 't', 120);
		_measure($bench, $n, $begin, sub { syswrite $in, "move\n" });
		use_url($session, "redis://127.0.0.1:$ENV{REDIS_PORT}/0");
		1;
	};
	my $error = $@;
	close $in;
	waitpid $pid, 0;
	die $error unless $done;
	return;
}

sub run
{
	my ($bench) = @_;
	my $report = $bench->{report};

	foreach my $n (@numbers) { _with_masters($bench, $n) }
	$report->table("Masters of a cluster\nPlayed by one process of the loopback, without keys; "
		  . '8 clients; one measurement each.',
		[ '', map { "$_ masters" } @numbers ],
		map {
			my ($figure, $what, $unit, $digits) = @$_;
			[ $unit ? "$what, $unit" : $what, map {
				sprintf "%.${digits}f", $report->median_of('masters', $_, 'worker', $figure)
			} @numbers ]
		} @figures);
	return;
}

1;
