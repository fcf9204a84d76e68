# Certificates.pm: a certificate authority for the tests, by the program openssl.

package Certificates;

use strict;
use warnings;

use File::Temp ();
use POSIX ();
use Time::HiRes qw(sleep);

my @key = ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1');

# new(): an authority of its own, in a temporary folder.
sub new
{
	my ($class) = @_;
	my $folder = File::Temp->newdir('certsXXXXXX', TMPDIR => 1);
	my $self = bless { folder => $folder }, $class;

	_openssl('req', '-x509', @key, '-nodes', '-days', 3650,
		'-subj', '/CN=test authority', '-keyout', "$folder/ca.key", '-out', "$folder/ca.crt");
	return $self;
}

sub _openssl
{
	my (@words) = @_;
	my $pid = fork;

	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open STDOUT, '>', '/dev/null';
		open STDERR, '>', '/dev/null';
		exec('openssl', @words) or POSIX::_exit(127);
	}
	waitpid $pid, 0;
	die "openssl @words failed" if $? != 0;
	return;
}

sub ca { return "$_[0]->{folder}/ca.crt" }

# make(NAME, ALTERNATIVES, DAYS): a certificate and its key.  ALTERNATIVES is
# such as 'DNS:localhost,IP:127.0.0.1'; DAYS of 0: it has expired.
sub make
{
	my ($self, $name, $alternatives, $days) = @_;
	my $file = "$self->{folder}/$name";

	open my $out, '>', "$file.ext" or die "could not write $file.ext: $!";
	print $out "subjectAltName = $alternatives\n";
	close $out;
	_openssl('req', @key, '-nodes', '-subj', "/CN=$name", '-keyout', "$file.key",
		'-out', "$file.csr");
	_openssl('x509', '-req', '-in', "$file.csr", '-CA', $self->ca, '-CAkey',
		"$self->{folder}/ca.key",
		'-CAcreateserial', '-days', $days // 3650, '-extfile', "$file.ext", '-out', "$file.crt");
	# OpenSSL from 3.5 on makes none that has expired already; this one does in a second.
	if (defined $days && $days == 0)
	{
		sleep 0.1 while eval { _openssl('x509', '-checkend', 0, '-noout', '-in', "$file.crt"); 1 };
	}
	return;
}

sub cert { return "$_[0]->{folder}/$_[1].crt" }
sub key { return "$_[0]->{folder}/$_[1].key" }

1;
