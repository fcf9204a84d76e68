#!/usr/bin/perl
#
# bench.pl: runs the benches against the servers that servers.sh has started.

use strict;
use warnings;

use Getopt::Long;
use IO::Handle;
use POSIX ();

use Bench::Bulk;
use Bench::Databases;
use Bench::Drain;
use Bench::Lanes;
use Bench::Latency;
use Bench::Load;
use Bench::Masters;
use Bench::Overview;
use Bench::Patterns;
use Bench::Places;
use Bench::Profile;
use Bench::Report;
use Bench::Scale;
use Bench::Session;
use Bench::Targets;
use Bench::Writes;

my @sections = (
	[ writes => \&Bench::Writes::run ],
	[ places => \&Bench::Places::run ],
	[ tpcb => \&Bench::Writes::run_tpcb ],
	[ snapshot => \&Bench::Writes::run_held ],
	[ latency => \&Bench::Latency::run ],
	[ drain => \&Bench::Drain::run ],
	[ bulk => \&Bench::Bulk::run ],
	[ patterns => \&Bench::Patterns::run ],
	[ scale => \&Bench::Scale::run ],
	[ masters => \&Bench::Masters::run ],
	[ profile => \&Bench::Profile::run ],
	[ decoding => \&Bench::Latency::run_decoding ],
	[ databases => \&Bench::Databases::run ],
);

my $usage = <<"TEXT";
usage: bench/run.sh [OPTION]...
  --rounds N         rounds of the first write bench (9); two thirds of them with a
                     snapshot held, a third for everything else
  --seconds N        seconds of each load of the first two (2); half of it elsewhere
  --clients N,N...   clients of the write benches (8,1,32; in places 8,1,32,64)
  --lanes NAME,...   only these lanes of the write benches
  --sections NAME,.. only these: @{[join ', ', map { $_->[0] } @sections]}
  --rows N           rows of the bulk updates, keys of the drain (1000000); ten times
                     as many undelivered keys in the section scale
  --pattern-keys N   keys of the server below which the patterns are found (1000000;
                     10000000 with --publish: Redis needs about 1 GB)
  --check            only say what is wrong with the options
  --publish          write what was measured into docs/performance.md, README.md and
                     docs/performance/; all sections take an hour
Lanes: @{[join ', ', map { $_->{id} } Bench::Lanes::all()]}
TEXT

my %option = (rounds => 9, seconds => 2, clients => '', lanes => '',
	sections => '', rows => 1_000_000, 'pattern-keys' => 1_000_000);
GetOptions(\%option, 'rounds=i', 'seconds=i', 'clients=s', 'lanes=s',
	'sections=s', 'rows=i', 'pattern-keys=i', 'check', 'help')
  or die $usage;
if ($option{help}) { print $usage; exit 0 }

# A name that is none would leave a table out in silence.
sub check_names
{
	my ($what, $list, @known) = @_;
	my %known = map { $_ => 1 } @known;

	foreach my $name (split /,/, $list)
	{
		die "there is no $what $name; there are: @{[join ', ', @known]}\n" if !$known{$name};
	}
	return;
}

check_names('section', $option{sections}, map { $_->[0] } @sections);
check_names('lane', $option{lanes}, map { $_->{id} } Bench::Lanes::all());
foreach my $clients (split /,/, $option{clients})
{
	die "clients must be a positive number, not $clients\n" if $clients !~ /^[1-9]\d*$/;
}
exit 0 if $option{check};

sub describe_machine
{
	my ($session, $report) = @_;
	my ($cpu) = `grep -m1 'model name' /proc/cpuinfo` =~ /: (.*)/;
	my $cpus = `nproc`;
	my $memory = `grep MemTotal /proc/meminfo` =~ /(\d+)/ ? sprintf('%.0f GB',
		$1 / 1024 / 1024) : '?';
	my ($redis) = `redis-server --version` =~ /v=(\S+)/;

	chomp $cpus;
	$report->text(sprintf "Machine: %s, %d CPUs, %s, Linux %s; PostgreSQL %s, Redis %s.  %s, %s "
		. "rounds of %s s; load average before: %s.",
		$cpu // '?', $cpus, $memory, (POSIX::uname())[2],
			$session->query('SHOW server_version') =~ s/ .*//r,
		$redis // '?', POSIX::strftime('%Y-%m-%d', localtime), $option{rounds}, $option{seconds},
		join ' ', (split ' ', `cat /proc/loadavg`)[0 .. 2]);
	return;
}

STDOUT->autoflush;
system('createdb', 'bench') == 0 or die 'createdb failed';
my $session = Bench::Session->new('bench');
my %bench = (
	session => $session,
	report => Bench::Report->new("$ENV{PRIVATE}/results"),
	rounds => $option{rounds},
	few => POSIX::ceil($option{rounds} / 3),
	seconds => $option{seconds},
	brief => POSIX::ceil($option{seconds} / 2),
	rows => $option{rows},
	pattern_keys => $option{'pattern-keys'},
	clients => [ split /,/, $option{clients} || '8,1,32' ],
	places_clients => [ split /,/, $option{clients} || '8,1,32,64' ],
	lanes => [ split /,/, $option{lanes} ],
);
my %wanted = map { $_ => 1 } split /,/, $option{sections};

describe_machine($session, $bench{report});
Bench::Lanes::prepare($session);
Bench::Load::prepare($session);
# One that fails does not take the others' figures with it.
my $failed = 0;
foreach my $section (@sections)
{
	my ($name, $run) = @$section;

	next if %wanted && !$wanted{$name};
	next if eval { $run->(\%bench); 1 };
	$bench{report}->text("\nThe section $name came to no end: $@");
	$failed = 1;
	$bench{session} = Bench::Session->new('bench');
	$bench{session}->query('ALTER SYSTEM RESET ALL');
	$bench{session}->query('SELECT pg_reload_conf()');
}
Bench::Targets::report($bench{report}, $bench{rows});
Bench::Overview::picture($bench{report}, $bench{report}->file('writes.svg'));
$bench{session}->close;
exit $failed;
