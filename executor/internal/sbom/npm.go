package sbom

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"strings"
)

// inNodeModules tells whether dir is that of a package: …/node_modules/NAME or
// …/node_modules/@SCOPE/NAME.
func inNodeModules(dir string) bool {
	up := path.Dir(dir)
	if strings.HasPrefix(path.Base(up), "@") {
		up = path.Dir(up)
	}
	return path.Base(up) == "node_modules"
}

// readNpm reads the package.json of a package that is installed.
func readNpm(b []byte, f *File) error {
	var m struct {
		Name    string          `json:"name"`
		Version string          `json:"version"`
		License json.RawMessage `json:"license"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	if m.Name == "" || m.Version == "" {
		return nil // a part of a package that only names its type
	}
	p := Package{Kind: Npm, Name: m.Name, Version: m.Version}
	_ = json.Unmarshal(m.License, &p.License) // old ones are objects
	f.Packages = append(f.Packages, p)
	return nil
}

// locked is one package of a lock file.
type locked struct {
	Name    string
	Version string
	Dev     bool
	Link    bool
	License json.RawMessage
}

// readNpmLock reads package-lock.json of any version, without what is for development.
// It goes through the file token by token: what a small file says may take much memory.
func readNpmLock(b []byte, f *File) error {
	l := &lock{d: json.NewDecoder(bytes.NewReader(b)), f: f}
	return l.object(func(key string) error {
		switch key {
		case "packages":
			f.Packages, l.places = nil, true // what dependencies say for older npms
			return l.packages(0)
		case "dependencies":
			if !l.places {
				return l.packages(1)
			}
		}
		return l.skip()
	})
}

// lock is a lock file that is read.
type lock struct {
	d      *json.Decoder
	f      *File
	places bool // it is of the newer form: names of packages are their places
}

// object calls f with each key of an object, to read its value.
func (l *lock) object(f func(key string) error) error {
	t, err := l.d.Token()
	if err != nil {
		return err
	}
	if t != json.Delim('{') {
		return fmt.Errorf("at byte %d there is no object", l.d.InputOffset())
	}
	for l.d.More() {
		key, err := l.d.Token()
		if err != nil {
			return err
		}
		if err := f(key.(string)); err != nil {
			return err
		}
	}
	_, err = l.d.Token()
	return err
}

// skip reads a value of no interest.
func (l *lock) skip() error {
	for depth := 0; ; {
		t, err := l.d.Token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// packages reads an object of packages; in the older form, at a depth of 1 and more,
// they have others within.
func (l *lock) packages(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("more than %d packages within each other", maxDepth)
	}
	return l.object(func(name string) error {
		var p locked
		err := l.object(func(key string) error {
			switch key {
			case "name":
				return l.d.Decode(&p.Name)
			case "version":
				return l.d.Decode(&p.Version)
			case "dev":
				return l.d.Decode(&p.Dev)
			case "link":
				return l.d.Decode(&p.Link)
			case "license":
				return l.d.Decode(&p.License)
			case "dependencies":
				if depth > 0 {
					return l.packages(depth + 1)
				}
			}
			return l.skip()
		})
		if err != nil {
			return err
		}
		if depth == 0 {
			i := strings.LastIndex("/"+name, "/node_modules/")
			if i < 0 {
				return nil // the project itself, or a workspace of it
			}
			name = cmp.Or(p.Name, name[i+len("node_modules/"):])
		}
		if p.Dev || p.Link || p.Version == "" || strings.Contains(p.Version, ":") { // file:, git+ssh:
			return nil
		}
		out := Package{Kind: Npm, Name: name, Version: p.Version}
		_ = json.Unmarshal(p.License, &out.License)
		return l.f.add(out)
	})
}

const maxDepth = 100
