#!/bin/bash
#
# run.sh: what `make demo` runs.

set -u
. "$(dirname "$0")/../test/lib/private.sh"
private_run build demo/demo.sh
