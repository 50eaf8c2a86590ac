package schema

import (
	"path"
	"strings"
)

// pathFrom takes the path v from dir, or from the workspace root if it starts
// with "//". Both results and dir are relative to the workspace root. A path that
// leaves the workspace is a problem.
func (p *parser) pathFrom(v *value, dir string) string {
	full := ""
	switch {
	case strings.HasPrefix(v.text, "//"):
		full = path.Join(".", strings.TrimLeft(v.text, "/"))
	case strings.HasPrefix(v.text, "/"):
		p.problems.Add(v.pos, "write it from here, or with // from the workspace root", "path %q leaves the workspace", v.text)
		return "."
	case v.text == "~" || strings.HasPrefix(v.text, "~/"):
		p.problems.Add(v.pos, "~ works for secrets and ssh keys only", "path %q leaves the workspace", v.text)
		return "."
	default:
		full = path.Join(dir, v.text)
	}
	switch {
	case v.text == "":
		p.problems.Add(v.pos, "write . for the directory itself", "a path is empty")
		return "."
	case strings.ContainsRune(v.text, 0):
		p.problems.Add(v.pos, "", "path %q holds a zero byte", v.text)
		return "."
	case full == ".." || strings.HasPrefix(full, "../"):
		p.problems.Add(v.pos, "move the manifest to a directory above both", "path %q leaves the workspace", v.text)
		return "."
	}
	return full
}

// outsidePath is a path that may lie outside of the workspace because it names
// what we use, not what goes into an image: absolute, below "~/", or as path has it.
func (p *parser) outsidePath(v *value) string {
	if strings.HasPrefix(v.text, "~/") || strings.HasPrefix(v.text, "/") && !strings.HasPrefix(v.text, "//") {
		return path.Clean(v.text)
	}
	return p.path(v)
}
