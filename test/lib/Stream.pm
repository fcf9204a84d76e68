# Stream.pm: what the TAP tests read from uncache.stream.

package Stream;

use strict;
use warnings;

use Exporter 'import';
use JSON::PP ();

use Uncache;

our @EXPORT = qw(entries named_in patterns_in are_named);

# entries(REDIS, STREAM): all entries, the oldest first, each a hash of its id and its
# fields, in which keys and patterns are arrays.
sub entries
{
	my ($redis, $stream) = @_;
	my @lines = split /\n/, $redis->cli('xrange', $stream, '-', '+');
	my @entries;

	while (@lines)
	{
		my $word = shift @lines;

		if ($word =~ /^\d+-\d+$/)
		{
			push @entries, { id => $word };
			next;
		}
		my $value = shift @lines;
		$entries[-1]{$word} = $word eq 'database' ? $value : JSON::PP->new->utf8->decode($value);
	}
	return @entries;
}

sub _all { my ($field, @at) = @_; return map { @{ $_->{$field} // [] } } entries(@at) }

# How often each key, or pattern, is named: a hash.
sub named_in { my %times; $times{$_}++ foreach _all('keys', @_); return %times }
sub patterns_in { my %times; $times{$_}++ foreach _all('patterns', @_); return %times }

# Whether all of these keys are named in time.
sub are_named
{
	my ($redis, $stream, @keys) = @_;

	return poll_until(sub {
		my %named = named_in($redis, $stream);

		return !grep { !$named{$_} } @keys;
	});
}

1;
