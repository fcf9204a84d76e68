#!/bin/bash
#
# proof.sh: what `make proof` runs: the same application with a plain cache and with the drop-in
# store, side by side.  Needs npm, which installs into the private folder.

set -u
. "$(dirname "$0")/../test/lib/private.sh"
bash "$SOURCE/test/lib/packages.sh" proof || exit 1
private_run build demo/proof/side_by_side.sh "$(npm config get registry 2>/dev/null)"
