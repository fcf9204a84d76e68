#!/bin/bash
#
# newer.sh FOLDER: unpack the Python libraries of the next Debian there.
#
# Nothing is installed.  They are those without compiled parts, which run with this Debian's
# Python.  Fails, with the reason as its last line, where they can't be had.

set -u
folder=$1
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
if [ "$suite" != bookworm ]; then
	echo "this Debian is not bookworm, so its libraries are the newer ones"
	exit 1
fi
mirror=$(sed -n 's/^URIs: *//p; s/^deb  *\(\[[^]]*\] \)\{0,1\}\(http[^ ]*\).*/\2/p' \
	/etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
	grep -v security | head -n 1)
mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial" || exit 1
cd "$folder" || exit 1
signed=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$signed] ${mirror:-http://deb.debian.org/debian} trixie main" >apt/sources
get="apt-get -qq -o Dir::Etc::SourceList=$folder/apt/sources -o Dir::Etc::SourceParts=/dev/null"
get+=" -o Dir::State::Lists=$folder/apt/lists -o Dir::Cache=$folder/apt"
get+=" -o APT::Sandbox::User=$(id -un)"
if ! { timeout 120 $get update && timeout 120 $get download python3-asgiref python3-django \
		python3-django-redis python3-dogpile.cache python3-psycopg python3-redis \
		python3-sqlparse; }; then
	echo "the next Debian's libraries can't be fetched"
	exit 1
fi
rm -rf apt
for package in *.deb; do
	dpkg -x "$package" . || exit 1
	rm "$package"
done
export PYTHONPATH=$folder/usr/lib/python3/dist-packages
if ! /usr/bin/python3 -c 'import redis, django, dogpile.cache, psycopg; print(redis)'; then
	echo "the next Debian's libraries don't work with this Python"
	exit 1
fi
