# RedisServer.pm: a private Redis for the TAP tests.
#
# It listens on a Unix socket in a temporary folder and nowhere else, and is
# ended by its process id when the test ends, however that happens.

package RedisServer;

use strict;
use warnings;

use File::Temp ();
use POSIX qw(:sys_wait_h);
use Time::HiRes qw(sleep time);

# Seconds until a server that was started must answer.
our $patience = 60;

my @servers;

# new(OPTION...): options of redis-server, such as '--appendonly', 'yes'.  Not
# started yet.
sub new
{
	my ($class, @options) = @_;
	my $folder = File::Temp->newdir('redisXXXXXX', TMPDIR => 1);
	my $self = bless {
		folder => $folder,
		socket => "$folder/socket",
		options => \@options,
		cli_options => [],
		pid => undef,
	}, $class;

	push @servers, $self;
	return $self;
}

# Keep every write on disk before it is answered, so that a killed server has
# all its keys again when it is back.
sub new_durable
{
	my ($class, @options) = @_;

	return $class->new('--appendonly', 'yes', '--appendfsync', 'always', @options);
}

# A Sentinel on a port, with these lines as its configuration.
sub new_sentinel
{
	my ($class, $port, @lines) = @_;
	my $self = $class->new;

	open my $out, '>', "$self->{folder}/sentinel.conf" or die "could not write: $!";
	print $out map { "$_\n" } @lines, "dir $self->{folder}";
	close $out;
	$self->{port} = $port;
	return $self;
}

sub socket { return $_[0]->{socket} }
sub pid { return $_[0]->{pid} }

# The address to give to uncache.redis_url; db may be left out.
sub url
{
	my ($self, $db) = @_;

	return "unix://$self->{socket}" . (defined $db ? "?db=$db" : '');
}

sub start
{
	my ($self) = @_;

	die "Redis is running already" if defined $self->{pid};
	my $pid = fork;
	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open STDOUT, '>>', "$self->{folder}/log";
		open STDERR, '>&', \*STDOUT;
		exec('redis-server', "$self->{folder}/sentinel.conf", '--sentinel')
		  or POSIX::_exit(127) if defined $self->{port};
		exec('redis-server', '--port', 0, '--unixsocket', $self->{socket},
		  '--dir', "$self->{folder}", '--save', '', @{ $self->{options} })
		  or POSIX::_exit(127);
	}
	$self->{pid} = $pid;
	my $deadline = time + $patience;
	until ($self->cli('ping') eq 'PONG')
	{
		die "Redis did not start:\n" . $self->log if time > $deadline
			or waitpid($pid, WNOHANG) == $pid;
		sleep 0.02;
	}
	return;
}

sub _end
{
	my ($self, $signal) = @_;

	return unless defined $self->{pid};
	kill $signal, $self->{pid};
	waitpid $self->{pid}, 0;
	$self->{pid} = undef;
	return;
}

sub stop { $_[0]->_end('TERM'); return }
sub kill9 { $_[0]->_end('KILL'); return }

# Hung: it keeps its connections and answers nothing.
sub freeze { kill 'STOP', $_[0]->{pid}; return }
sub thaw { kill 'CONT', $_[0]->{pid}; return }

# What redis-cli needs to be let in: cli_options('-a', PASSWORD).
sub cli_options
{
	my ($self, @options) = @_;

	$self->{cli_options} = \@options;
	return;
}

# cli_way(OPTION...): how redis-cli gets there, in place of the socket.
sub cli_way
{
	my ($self, @options) = @_;

	$self->{way} = \@options;
	return;
}

# cli(WORD...): run one command, return what redis-cli prints without the last
# newline; '' where it could not be reached.
sub cli
{
	my ($self, @words) = @_;

	my @way = defined $self->{port} ? ('-p', $self->{port}) : ('-s', $self->{socket});

	return $self->cli_by($self->{way} // \@way, @words);
}

# cli_by(OPTIONS, WORD...): the same, with another way to the server.
sub cli_by
{
	my ($self, $options, @words) = @_;
	my $pid = open my $out, '-|';

	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open STDERR, '>', '/dev/null';
		exec('redis-cli', @$options, @{ $self->{cli_options} }, '--raw', @words)
			or POSIX::_exit(127);
	}
	local $/;
	my $text = <$out> // '';
	close $out;
	$text =~ s/\n\z//;
	return $text;
}

# Many commands in one run of redis-cli; what that prints, which is not an answer a line.
sub pipe
{
	my ($self, @commands) = @_;
	my $file = "$self->{folder}/commands";

	open my $to, '>', $file or die "$file: $!";
	print $to join(' ', map { '"' . s/(["\\])/\\$1/gr . '"' } @$_), "\n" foreach @commands;
	close $to;
	my @way = defined $self->{port} ? ('-p', $self->{port}) : ('-s', $self->{socket});
	my $text = qx(redis-cli @way --raw < '$file');
	unlink $file;
	return $text;
}

# fill(KEY...): set each to 1, in as many commands as need be.
sub fill
{
	my ($self, @keys) = @_;

	while (my @some = splice @keys, 0, 5000)
	{
		$self->cli('mset', map { ($_, 1) } @some) eq 'OK'
		  or die "Redis did not take the keys";
	}
	return;
}

# fill_range(PREFIX, FIRST, LAST): set PREFIX . n for each n.
sub fill_range
{
	my ($self, $prefix, $first, $last) = @_;
	my $script =
		'for i = ARGV[2], ARGV[3] do redis.call("set", ARGV[1] .. string.format("%d", i), 1) end';

	$self->cli('eval', $script, 0, $prefix, $first, $last);
	return;
}

# All keys, sorted; or those that match a glob; or how many.  Not for large ones.
sub keys
{
	my ($self, $glob) = @_;
	my @keys = sort split /\n/, $self->cli('keys', $glob // '*');

	return @keys;
}

sub has
{
	my ($self, $key) = @_;

	return $self->cli('exists', $key) eq '1';
}

# info(SECTION, FIELD): one figure of INFO; '' when it is not there.
sub info
{
	my ($self, $section, $field) = @_;

	return $self->cli('info', $section) =~ /^\Q$field\E:(.*?)\r?$/m ? $1 : '';
}

# How often a command was called since the server started.
sub calls
{
	my ($self, $command) = @_;

	return $self->info('commandstats', "cmdstat_$command") =~ /^calls=(\d+)/ ? $1 : 0;
}

# How often something asked whether the server is well, in whatever way the worker
# does it; with what was refused for want of rights.
sub pings
{
	my ($self) = @_;
	my $sum = 0;

	foreach my $command ('ping', 'fcall', 'function|list')
	{
		$self->info('commandstats',
			"cmdstat_$command") =~ /^calls=(\d+).*rejected_calls=(\d+)/ or next;
		$sum += $1 + $2;
	}
	return $sum;
}

sub log
{
	my ($self) = @_;

	open my $in, '<', "$self->{folder}/log" or return '';
	local $/;
	return scalar <$in>;
}

END
{
	# waitpid must not change the exit code of the test.
	my $status = $?;
	$_->kill9 foreach @servers;
	$? = $status;
}

1;
