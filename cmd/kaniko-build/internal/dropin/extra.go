package dropin

import (
	"fmt"
	"slices"

	"github.com/spf13/pflag"
)

// Extra is what flags of kaniko's executor say about one image of a manifest.
type Extra struct {
	Single      bool     // --single-snapshot
	IgnorePaths []string // --ignore-path, --ignore-var-run
	Retries     int      // the most that --push-retry and its like say; 0 without
}

// keys are the flags that a manifest has keys for.
var keys = map[string]string{
	"dockerfile": "dockerfile", "context": "context", "context-sub-path": "context", "build-arg": "args", "label": "labels", "annotation": "annotations",
	"target": "stage", "custom-platform": "platforms", "customPlatform": "platforms", "secret": "secrets", "destination": "image and tags", "no-push": "run.push",
	"tar-path": "outputs", "tarPath": "outputs", "oci-layout-path": "outputs", "image-format": "executor.imageFormat", "compression": "executor.compression",
	"compression-level": "executor.compressionLevel", "reproducible": "executor.reproducible", "snapshot-mode": "executor.snapshotMode", "snapshotMode": "executor.snapshotMode",
	"cache": "cache", "cache-repo": "cache.repo", "cache-ttl": "cache.ttl", "cache-copy-layers": "cache.copy", "cache-run-layers": "cache.run", "no-push-cache": "cache.write",
	"registry-mirror": "registries", "registry-map": "registries", "registry-certificate": "registries", "registry-client-cert": "registries", "insecure": "registries",
	"insecure-registry": "registries", "insecure-pull": "registries", "skip-tls-verify": "registries", "skip-tls-verify-registry": "registries", "skip-tls-verify-pull": "registries",
	"skip-default-registry-fallback": "registries", "digest-file": "run.digestDir", "push-ignore-immutable-tag-errors": "registries with onTagExists",
}

// ParseExtra reads flags of kaniko's executor that are about one image and have no
// key in a manifest. An error says which key is meant, or that there is none.
func ParseExtra(args []string) (Extra, error) {
	var s settings
	fl := pflag.NewFlagSet("extraArgs", pflag.ContinueOnError)
	s.add(fl)
	if err := fl.Parse(args); err != nil {
		return Extra{}, err
	}
	if fl.NArg() > 0 {
		return Extra{}, fmt.Errorf("%q is no flag", fl.Arg(0))
	}
	taken := []string{"single-snapshot", "ignore-path", "ignore-var-run", "whitelist-var-run", "push-retry", "image-download-retry", "image-fs-extract-retry", "compressed-caching"}
	for _, n := range nothing {
		taken = append(taken, n.name)
	}
	var err error
	fl.Visit(func(f *pflag.Flag) {
		switch {
		case err != nil || slices.Contains(taken, f.Name):
		case keys[f.Name] != "":
			err = fmt.Errorf("--%s has a key of its own: %s", f.Name, keys[f.Name])
		default:
			err = fmt.Errorf("--%s does not speak of one image", f.Name)
		}
	})
	return Extra{
		Single: s.singleSnapshot, IgnorePaths: s.ignored(fl.Changed), Retries: max(s.push.retry, s.downloadRetry, s.fsRetry),
	}, err
}
