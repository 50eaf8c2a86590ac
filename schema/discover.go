package schema

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"kaniko-build/schema/diag"
)

// fileNames is what a manifest may be called, the usual name first.
var fileNames = []string{"kaniko-build.yaml", "kaniko-build.yml"}

// Owners lists the users that own the file at an absolute path: of the name
// itself and, if that is a symbolic link, of what it leads to. A file that does not
// exist is an fs.ErrNotExist.
type Owners func(path string) (uids []uint32, err error)

// Discover finds the manifest for the directory start, an absolute path: the
// nearest one between start and the root of its git work tree; outside a work tree
// only in start. A manifest that belongs to another user than root or uid is
// refused, for it decides what we run. No manifest, two in one directory and a
// foreign one are *diag.Problem.
func Discover(start string, uid uint32, owners Owners) (string, error) {
	top, err := workTree(start, owners)
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		path, err := manifestIn(dir, uid, owners)
		if err != nil || path != "" {
			return path, err
		}
		if dir == top {
			return "", &diag.Problem{
				What: fmt.Sprintf("no %s in %s", fileNames[0], searched(start, top)),
				Hint: "kaniko-build init writes one; name yours with -f",
			}
		}
	}
}

func searched(start, top string) string {
	if start == top {
		return start
	}
	return start + " or above it up to " + top
}

// workTree is the nearest directory from start upwards that holds .git, or start
// itself without one.
func workTree(start string, owners Owners) (string, error) {
	for dir := start; ; dir = filepath.Dir(dir) {
		_, err := owners(filepath.Join(dir, ".git"))
		switch {
		case err == nil:
			return dir, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("look for the git work tree: %w", err)
		case dir == filepath.Dir(dir):
			return start, nil
		}
	}
}

// overrideNames is what the file beside a manifest may be called that is merged
// over it on a developer's machine.
var overrideNames = []string{"kaniko-build.override.yaml", "kaniko-build.override.yml"}

// Override is the override file beside a manifest that Discover found, or "". It is
// refused as a manifest is.
func Override(manifest string, uid uint32, owners Owners) (string, error) {
	return oneOf(overrideNames, filepath.Dir(manifest), uid, owners)
}

// Trust refuses a file that belongs to another user than root or uid, as Discover
// does; a missing one is for others to report.
func Trust(file string, uid uint32, owners Owners) error {
	_, err := oneOf([]string{filepath.Base(file)}, filepath.Dir(file), uid, owners)
	return err
}

// manifestIn is the manifest of one directory, or "".
func manifestIn(dir string, uid uint32, owners Owners) (string, error) {
	return oneOf(fileNames, dir, uid, owners)
}

// oneOf is the file of a directory that has one of the names, or "".
func oneOf(names []string, dir string, uid uint32, owners Owners) (string, error) {
	found := ""
	for _, name := range names {
		path := filepath.Join(dir, name)
		uids, err := owners(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("look for the manifest: %w", err)
		}
		if found != "" {
			return "", &diag.Problem{Pos: diag.Pos{File: path}, What: "stands beside " + found, Hint: "keep one of them, or choose with -f"}
		}
		if i := slices.IndexFunc(uids, func(u uint32) bool { return u != 0 && u != uid }); i >= 0 {
			return "", &diag.Problem{
				Pos:  diag.Pos{File: path},
				What: fmt.Sprintf("belongs to user %d, and you are %d", uids[i], uid),
				Hint: "if you trust it, name it with -f",
			}
		}
		found = path
	}
	return found, nil
}
