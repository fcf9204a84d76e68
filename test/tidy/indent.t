# Are the C sources in PostgreSQL's style?  indent.sh knows; where it can't, it says why.

use strict;
use warnings;

use File::Basename qw(dirname);
use Test::More tests => 1;

my $script = dirname(__FILE__) . '/indent.sh';
my $out = qx{bash "$script" check 2>&1};
my $status = $? >> 8;

SKIP:
{
	skip $out =~ s/\n.*//sr, 1 if $status == 77;
	is($status, 0, 'the C sources are in style') or diag $out;
}
