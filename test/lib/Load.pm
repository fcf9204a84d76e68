# Load.pm: writers under which things are made to go wrong, and their oracle.
#
# Eight clients update single rows of item(id, n), whose rule is 'item:{id}'; one in
# five rolls back.  The oracle is the table "touched": every change notes, in the same
# transaction and by plain SQL, which key it should delete.
#
#	my $load = Load->new($node, 20000);		# then fill Redis with item:1 .. item:20000
#	$load->start;
#	$load->go_on('when this happens');
#	$load->end;
#	$load->check(\@keys);					# what is left in Redis

package Load;

use strict;
use warnings;

use IPC::Run;
use Test::More;

use PostgreSQL::Test::Utils qw(append_to_file);
use Uncache;

# new(NODE, ROWS): the tables, and the rule.
sub new
{
	my ($class, $node, $rows) = @_;
	my $self = bless { node => $node, rows => $rows, out => '', err => '' }, $class;

	$self->_sql(qq{
		CREATE TABLE item (id int PRIMARY KEY, n int);
		INSERT INTO item SELECT i, 0 FROM generate_series(1, $rows) i;
		CREATE TABLE touched (key text);
		SELECT uncache.attach('item', 'item:{id}')});
	return $self;
}

sub _sql { my ($self, $sql) = @_; return $self->{node}->safe_psql('postgres', $sql) }

# For five minutes, or until end().
sub start
{
	my ($self) = @_;
	my $node = $self->{node};
	my $script = $node->basedir . '/change.sql';

	append_to_file($script, qq{
\\set id random(1, $self->{rows})
\\set end random(0, 4)
\\set pause random(1, 20)
BEGIN;
UPDATE item SET n = n + 1 WHERE id = :id;
INSERT INTO touched VALUES ('item:' || :id);
\\if :end = 0
ROLLBACK;
\\else
COMMIT;
\\endif
\\sleep :pause ms
});
	$self->{pgbench} = IPC::Run::start([ 'pgbench', '-n', '-c', 8, '-T', 300, '-f', $script,
			'-p', $node->port, '-h', $node->host, 'postgres' ], '>', \$self->{out},
				'2>', \$self->{err});
	return;
}

sub _commits { return $_[0]->_sql('SELECT count(*) FROM touched') }

# A hundred commits more, whatever Redis does.
sub go_on
{
	my ($self, $when) = @_;
	my $count = $self->_commits;

	ok(poll_until(sub { $self->_commits >= $count + 100 }), "$when: commits go on");
	return;
}

sub end
{
	my ($self) = @_;

	$self->{pgbench}->signal('INT');
	$self->{pgbench}->finish;
	unlike($self->{err}, qr/ERROR|aborted/, 'no transaction has failed') or diag $self->{err};
	return;
}

# check(KEYS, COUNT): of these keys, a reference to a list, none was touched, and no
# other is missing; and more than COUNT were touched.
sub check
{
	my ($self, $keys, $count) = @_;
	my %touched = map { $_ => 1 } split /\n/, $self->_sql('SELECT DISTINCT key FROM touched');
	my %left = map { $_ => 1 } @$keys;
	my @stale = grep { $left{$_} } keys %touched;
	my @early = grep { !$left{$_} && !$touched{$_} } map { "item:$_" } 1 .. $self->{rows};

	cmp_ok(scalar keys %touched, '>', $count, 'many keys were touched');
	is(scalar @stale, 0, 'no key that a committed transaction touched is left') or diag "@stale";
	is(scalar @early, 0, 'no other key was deleted') or diag "@early";
	return;
}

1;
