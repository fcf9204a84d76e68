# A library that was built with the headers of a new minor release loads into a server of
# an older minor of the same major: nothing that a minor release has added is called.
# Headers call such functions from what they inline, so that the source does not show it.
# test/packages loads the library into the oldest minor that Debian has.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

chomp(my $folder = `pg_config --pkglibdir`);
my %needs = map { $_ => 1 } `nm -D --undefined-only $folder/pg_uncache.so` =~ /\bU (\w+)/g;

ok($needs{heap_form_tuple}, 'nm shows what the library needs');
# Function => what calls it, since which minor releases.
my %added = (
	heap_datum_check => 'heap_getattr(), of 15.20 and 17.11',
	DatumGetHeapTupleHeader => 'the macro of that name, of 15.20 and 17.11',
	DatumGetHeapTupleHeaderExt => 'the same',
	DatumGetHeapTupleHeaderCopy => 'the same');
is_deeply([ grep { $needs{$_} } sort keys %added ], [], 'it needs no function of a later minor');

done_testing();
