package importer

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// File is a file that is imported, as messages call it and as it is read.
type File struct {
	Name string
	Text []byte
}

// Kind is a program whose files are read.
type Kind string

// The programs.
const (
	Bake     Kind = "bake"
	Compose  Kind = "compose"
	Skaffold Kind = "skaffold"
)

var (
	skaffoldFile = regexp.MustCompile(`(?m)^\s*"?apiVersion"?:\s*"?skaffold/`)
	composeFile  = regexp.MustCompile(`(?m)^\s*"?(services|include)"?\s*:`)
	bakeFile     = regexp.MustCompile(`"(target|group|variable|function)"\s*:`)
)

// KindOf tells whose file it is by name and text; "" is none that is known.
func KindOf(name string, text []byte) Kind {
	ext := path.Ext(name)
	switch {
	case ext == ".hcl":
		return Bake
	case skaffoldFile.Match(text):
		return Skaffold
	case strings.HasPrefix(strings.TrimSpace(string(text)), "{") && bakeFile.Match(text):
		return Bake
	case composeFile.Match(text) && slices.Contains([]string{".yaml", ".yml", ".json"}, ext):
		return Compose
	}
	return ""
}

// Known are the names that these files usually have, to tell of them.
var Known = []string{
	"docker-bake.hcl", "docker-bake.json", "compose.yaml", "compose.yml",
	"docker-compose.yaml", "docker-compose.yml", "skaffold.yaml",
}
