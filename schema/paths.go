package schema

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"kaniko-build/schema/diag"
)

// pathReader takes paths of a manifest.
type pathReader struct {
	problems *diag.List
	allowed  []string // directories outside of the workspace that paths may lead to; see Options.AllowFS
}

// pathFrom takes the path v from dir, or from the workspace root if it starts
// with "//". Both results and dir are relative to the workspace root. A path that
// leaves the workspace is a problem, unless it leads to where that is allowed.
func (p pathReader) pathFrom(v *value, dir string) string {
	full, root := "", rootOf(v.pos.File)
	switch {
	case strings.HasPrefix(v.text, "//"):
		full = path.Join(cmp.Or(root, "."), strings.TrimLeft(v.text, "/"))
	case strings.HasPrefix(v.text, "/"):
		full = path.Clean(v.text)
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
	case root != "" && path.IsAbs(full) && !slices.ContainsFunc(p.allowed, func(dir string) bool { return below(full, dir) }),
		root != "" && !path.IsAbs(full) && !below(full, root) && !below(full, dir), root == "" && rootOf(dir) != "" && !below(full, rootOf(dir)) && !strings.HasPrefix(v.text, "/"):
		p.problems.Add(v.pos, "a path counts from its file, or with // from the root of its repository", "path %q leaves the repository", v.text)
		return "."
	case !leaves(full) || slices.ContainsFunc(p.allowed, func(dir string) bool { return below(full, dir) }):
		return full
	case path.IsAbs(full):
		p.problems.Add(v.pos, "write it from here, or with // from the workspace root; --allow=fs:DIR lets it be", "path %q leaves the workspace", v.text)
	default:
		p.problems.Add(v.pos, "move the manifest to a directory above both, or allow it with --allow=fs:DIR", "path %q leaves the workspace", v.text)
	}
	return "."
}

// leaves tells whether a clean path is outside of the workspace.
func leaves(full string) bool {
	return path.IsAbs(full) || full == ".." || strings.HasPrefix(full, "../")
}

// below tells whether a clean path is a directory or lies in it.
func below(full, dir string) bool {
	return full == dir || strings.HasPrefix(full, strings.TrimSuffix(dir, "/")+"/")
}

// outsidePath is a path that may lie outside of the workspace because it names
// what we use, not what goes into an image: absolute, below "~/", or as path has it.
func (p *parser) outsidePath(v *value) string {
	if rootOf(v.pos.File) != "" {
		return p.path(v)
	}
	if strings.HasPrefix(v.text, "~/") || strings.HasPrefix(v.text, "/") && !strings.HasPrefix(v.text, "//") {
		return path.Clean(v.text)
	}
	return p.path(v)
}

// path is a path relative to the file that wrote it, or to the workspace root if
// it starts with "//", taken from the workspace root.
func (p *parser) path(v *value) string { return p.pathFrom(v, p.dir(v.pos)) }

// dir is the directory of the file that wrote something; that of a flag is the
// workspace root.
func (p *parser) dir(pos diag.Pos) string {
	if p.scope.units[pos.File] == nil {
		return "."
	}
	return path.Dir(pos.File)
}
