package schema

import (
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// systems and architectures are those that Go, containerd and the OCI's image-spec have
// words for, and what NormalPlatform leaves to containerd to spell.
var (
	systems       = strings.Fields("linux windows darwin macos freebsd netbsd openbsd dragonfly solaris illumos aix android ios plan9 hurd zos js wasip1 wasi local unknown")
	architectures = strings.Fields("amd64 arm64 arm 386 ppc64le s390x riscv64 loong64 mips64le mips64 mipsle mips mips64r6 mips64r6el mips64el mipsel ppc64 ppc riscv sparc64 sparc s390 wasm amd64p32 arm64be armbe mips64p32 mips64p32le x86_64 x86-64 i386 aarch64 armhf armel unknown")
)

// meant are words for architectures that people write and nobody else knows.
var meant = map[string]string{"armv5": "arm/v5", "armv6": "arm/v6", "armv6l": "arm/v6", "armv7": "arm/v7", "armv7l": "arm/v7", "armv8": "arm64", "x64": "amd64", "x86": "386", "i686": "386"}

// CheckPlatform tells whether a platform, OS/ARCH[/VARIANT] or one word of it, can be
// meant. near is the known one that it nearly is: others may be new, and are taken.
func CheckPlatform(p string) (near string, ok bool) {
	parts := strings.Split(p, "/")
	if len(parts) > 3 || slices.Contains(parts, "") {
		return "", false
	}
	if len(parts) == 1 {
		words := slices.Concat(architectures, systems)
		if slices.Contains(words, p) {
			return "", true
		}
		return nearest(p, words), false
	}
	system, arch := parts[0], parts[1]
	if !slices.Contains(systems, system) {
		system = nearest(system, systems)
	}
	if meant[arch] != "" {
		arch = meant[arch]
	} else if !slices.Contains(architectures, arch) {
		arch = nearest(arch, architectures)
	}
	if system != "" && system != parts[0] || arch != "" && arch != parts[1] {
		parts[0], parts[1] = orSame(system, parts[0]), orSame(arch, parts[1])
		return strings.Join(parts, "/"), false
	}
	return "", true
}

func known(p string) bool {
	_, ok := CheckPlatform(p)
	return ok
}

func orSame(s, old string) string {
	if s == "" {
		return old
	}
	return s
}

// nearest is the word that got is with one letter changed or two of them swapped, "" if
// there is none: a distance of two is near only for words that are no shorter.
func nearest(got string, words []string) string {
	for _, w := range words {
		if d := levenshtein.Distance(got, w, nil); d == 1 || d == 2 && len(w) == len(got) && len(w) > 3 {
			return w
		}
	}
	return ""
}
