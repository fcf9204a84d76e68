#!/bin/bash
#
# indent.sh [check]: bring the C sources into PostgreSQL's style, or, with "check", say
# which files are not in it.
#
# pg_bsd_indent does the work, with pgindent's options, but comments may be as wide as
# code.  It must know the names of types: typedefs.list has those of PostgreSQL and the
# libraries, and a new one is added by hand; those of src/ are found there.  What
# pg_bsd_indent gets wrong is put right around it.
#
# Exit code 0: all is in style (or has been brought into it); 1: not; 77: pg_bsd_indent
# is missing and can't be installed, or has a version whose style is another.

set -u
cd "$(dirname "$0")/../.." || exit 1

if ! command -v pg_bsd_indent >/dev/null; then
	[ "$(id -u)" -eq 0 ] && apt-get install -y -qq pg-bsd-indent >/dev/null 2>&1
	if ! command -v pg_bsd_indent >/dev/null; then
		echo "pg_bsd_indent is missing: apt-get install pg-bsd-indent" >&2
		exit 77
	fi
fi

version=$(pg_bsd_indent --version 2>&1)
case $version in
	"pg_bsd_indent 2.1.1"*) ;;
	*)
		echo "pg_bsd_indent 2.1.1 makes this style, and this is ${version%% (*}" >&2
		exit 77 ;;
esac

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

types_of_src()
{
	perl -0777 -ne '
		print "$1\n" while /^typedef[^;{]*?\(\*\s*(\w+)\)/mg;
		print "$1\n" while /^typedef[^;{()]*?(\w+);/mg;
		print "$1\n" while /^\} (\w+);/mg;' src/*/*.[ch]
}

# Compound literals are hidden from it, which takes their braces for a block: behind a
# name of the same width, with the number of its line in $folder/literals.  And "text" is
# a type only before a star: it is the name of variables, too.
hide_literals()					# hide_literals <FILE
{
	perl -e '
		my @literals;
		while (<STDIN>)
		{
			s/(\(\w+\) \{[^{}"]*\})/
				push @literals, $1; my $name = "L" . @literals . "_";
				$name . "_" x (length($1) - length $name)/ge;
			s/\btext (?=\*)/tEXt /g;
			print;
		}
		open my $out, ">", "$ARGV[0]/literals" or die $!;
		print $out map { "$_\n" } @literals;' "$folder"
}

# Put right: the literals are shown again; a designator follows its comma with a blank; a
# function's type and star stand alone on a line, with one blank between them; what
# continues the first value of a variable stands a tab to the right of it.
mend()
{
	perl -e '
		open my $in, "<", "$ARGV[0]/literals" or die $!;
		chomp(my @literals = <$in>);
		my ($declared, $shifted);	# indentation of the declaration that goes on
		while (<STDIN>)
		{
			s/\bL(\d+)__*/$literals[$1 - 1]/g;
			s/\btEXt\b/text/g;
			s/,(\.[a-z]\w* = )/, $1/g;
			s/^([A-Za-z_]\w*)[ \t]+\*$/$1 */;
			$shifted = 1 if defined $declared && /^$declared\S/;
			s/^/\t/ if $shifted;
			print;
			my $code = s{\s*/\*.*}{}r =~ s/\s+$//r;
			if (defined $declared)
			{
				undef $declared, undef $shifted if $code =~ /;$/;
			}
			elsif ($code =~ /^(\t+)(?:\w+ )*\w+\s+\**\w+(?:\[\w*\])? =(?: .*[^;,{])?$/)
			{
				$declared = $1;
			}
		}' "$folder"
}

once()							# once <FILE
{
	hide_literals >"$folder/hidden" &&
		pg_bsd_indent -bad -bap -bbb -bc -bl -cli1 -cp33 -cdb -nce -d0 -di12 -nfc1 -i4 -l98 -lp \
			-lpl -nip -npro -sac -tpg -ts4 -U"$folder/types" <"$folder/hidden" | mend
}

# Twice, since the blanks between two sentences of a comment may come out of the first time
# otherwise than they went in.
indented()						# indented FILE
{
	once <"$1" >"$folder/first" && once <"$folder/first"
}

status=0
new=$folder/new
{ echo tEXt; cat typedefs.list; types_of_src; } | LC_ALL=C sort -u >"$folder/types"
for file in src/*.c src/*/*.c src/*/*.h; do
	[ "$file" != src/fence/uncache_lua.h ] || continue
	indented "$file" >"$new" || exit 1
	cmp -s "$file" "$new" && continue
	if [ "${1:-}" = check ]; then
		echo "$file is not in style: make indent"
		diff "$file" "$new" | head -n 6
		status=1
	else
		cat "$new" >"$file"
	fi
done
exit $status
