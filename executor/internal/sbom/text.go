package sbom

import (
	"strings"
)

// readRelease reads os-release(5).
func readRelease(b []byte, f *File) error {
	var r Release
	err := eachLine(b, func(line string) error {
		k, v, ok := strings.Cut(strings.TrimSpace(line), "=")
		v = strings.Trim(v, `"'`)
		if !ok || (Package{Name: "x", Version: v}).check() != nil {
			return nil
		}
		switch k {
		case "ID":
			r.ID = v
		case "VERSION_ID":
			r.Version = v
		}
		return nil
	})
	if r.ID != "" {
		f.Release = &r
	}
	return err
}

// paragraphs calls f for each paragraph of fields "Name: value", whose values' further
// lines are left out.
func paragraphs(b []byte, f func(fields map[string]string) error) error {
	fields := map[string]string{}
	end := func() (err error) {
		if len(fields) > 0 {
			err = f(fields)
		}
		clear(fields)
		return err
	}
	err := eachLine(b, func(line string) error {
		if strings.TrimSpace(line) == "" {
			return end()
		}
		if k, v, ok := strings.Cut(line, ":"); ok && line[0] != ' ' && line[0] != '\t' && len(fields) < 1000 {
			fields[k] = strings.TrimSpace(v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return end()
}

// readDpkg reads dpkg's status, or one of its pieces as distroless images have them.
func readDpkg(b []byte, f *File) error {
	return paragraphs(b, func(fields map[string]string) error {
		status, ok := fields["Status"]
		if ok && !strings.HasSuffix(status, " installed") || fields["Package"] == "" {
			return nil
		}
		p := Package{Kind: Deb, Name: fields["Package"], Version: fields["Version"], Arch: fields["Architecture"]}
		if src := fields["Source"]; src != "" { // "glibc (2.36-9)"
			if p.Source, _, _ = strings.Cut(src, " "); p.Source == p.Name {
				p.Source = ""
			}
		}
		return f.add(p)
	})
}

// readApk reads apk's database of what is installed.
func readApk(b []byte, f *File) error {
	var p Package
	end := func() (err error) {
		if p.Name != "" {
			if p.Kind = Apk; p.Source == p.Name {
				p.Source = ""
			}
			err = f.add(p)
		}
		p = Package{}
		return err
	}
	err := eachLine(b, func(line string) error {
		if line == "" {
			return end()
		}
		k, v, ok := strings.Cut(line, ":")
		if !ok {
			return nil
		}
		switch k {
		case "P":
			p.Name = v
		case "V":
			p.Version = v
		case "A":
			p.Arch = v
		case "o":
			p.Source = v
		case "L":
			p.License = v
		}
		return nil
	})
	if err != nil {
		return err
	}
	return end()
}

// readPython reads the head of METADATA or PKG-INFO; the description follows it.
func readPython(b []byte, f *File) error {
	p := Package{Kind: PyPI}
	done := false
	err := eachLine(b, func(line string) error {
		if done = done || strings.TrimSpace(line) == ""; done {
			return nil
		}
		k, v, _ := strings.Cut(line, ":")
		v = strings.TrimSpace(v)
		switch k {
		case "Name":
			p.Name = v
		case "Version":
			p.Version = v
		case "License-Expression":
			p.License = v
		}
		return nil
	})
	if p.Name != "" {
		f.Packages = append(f.Packages, p)
	}
	return err
}
