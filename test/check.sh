#!/usr/bin/env bash
# The static checks, through `npm run check`: types, lint and format of TypeScript, import rules, format of C and C++, shell scripts.
# Every check runs even when an earlier one fails; a failing one prints its findings. Exit 1 when any fails.
# shellcheck disable=SC2317 # the functions are called through `check`
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

if [[ ! -x node_modules/node/bin/node ]]; then
  printf 'hsmgate: not set up\n  remedy: bash deploy/setup.sh test\n' >&2
  exit 1
fi
PATH=$PWD/node_modules/.bin:$PATH
failed=0

check() {
  local name=$1 findings
  shift
  if findings=$("$@" 2>&1); then
    printf 'ok    %s\n' "$name"
  else
    printf 'FAIL  %s\n%s\n' "$name" "$findings"
    failed=1
  fi
}

# Every file of the checkout but what is installed, built or made at run time.
files() {
  find . \( -name node_modules -o -name .git -o -name .hsmgate -o -path ./native/build -o -name coverage \) -prune -o -type f "$@" -print
}

clang_format() {
  local -a sources
  mapfile -t sources < <(files -regex '.*\.\(c\|cc\|cpp\|h\|hpp\)')
  ((${#sources[@]} == 0)) || clang-format --dry-run -Werror "${sources[@]}"
}

shell_scripts() {
  local -a scripts=()
  local file first
  while IFS= read -r file; do
    IFS= read -r -n 200 first <"$file" 2>/dev/null && [[ $first =~ ^#!.*[/\ ](ba)?sh(\ |$) ]] && scripts+=("$file")
  done < <(files -size -200k)
  shellcheck "${scripts[@]}"
}

check 'types (tsc)' tsc
check 'lint and format (biome)' biome check --error-on-warnings
check 'import rules (vitest)' vitest run test/unit/imports.test.ts
check 'C and C++ (clang-format)' clang_format
check 'shell scripts (shellcheck)' shell_scripts
exit "$failed"
