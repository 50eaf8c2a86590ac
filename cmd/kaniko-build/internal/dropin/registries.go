package dropin

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"kaniko-build/executor"
)

// registries is what the flags and the environment say about registries.
func (r *registryFlags) registries(destinations []string, log *logger) (named []executor.Registry, others executor.Registry, err error) {
	byHost := map[string]*executor.Registry{}
	var order []string
	host := func(name string) *executor.Registry {
		name = canonicalHost(name)
		if byHost[name] == nil {
			byHost[name] = &executor.Registry{Host: name}
			order = append(order, name)
		}
		return byHost[name]
	}
	for _, h := range r.insecureHosts {
		host(h).Insecure = true
	}
	for _, h := range r.skipTLSHosts {
		host(h).AnyCert = true
	}
	if r.insecure {
		for _, d := range destinations {
			if name, err := executor.ParseImageName(d); err == nil {
				host(name.Host).Insecure = true
			}
		}
	}
	if err := r.readCertificates(host); err != nil {
		return nil, others, err
	}
	if err := r.readMaps(host); err != nil {
		return nil, others, err
	}
	if r.skipTLS {
		log.warnf("--skip-tls-verify lets any server pose as a registry, when pulling too; --skip-tls-verify-registry names one")
	}
	others = executor.Registry{Insecure: r.insecurePull, AnyCert: r.skipTLS || r.skipTLSPull}
	for _, name := range order {
		e := byHost[name]
		e.Insecure = e.Insecure || others.Insecure
		e.AnyCert = e.AnyCert || others.AnyCert
		named = append(named, *e)
	}
	return named, others, nil
}

func (r *registryFlags) readCertificates(host func(string) *executor.Registry) error {
	authorities, err := pairs("registry-certificate", r.certificates)
	if err != nil {
		return err
	}
	for name, file := range authorities {
		b, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("--registry-certificate: %w", err)
		}
		host(name).CA = b
	}
	clients, err := pairs("registry-client-cert", r.clientCertificates)
	if err != nil {
		return err
	}
	for name, files := range clients {
		list := strings.Split(files, ",")
		if len(list) != 2 {
			return fmt.Errorf("--registry-client-cert %s=%s: write HOST=CERT,KEY", name, files)
		}
		e := host(name)
		if e.Cert, err = os.ReadFile(list[0]); err == nil {
			e.Key, err = os.ReadFile(list[1])
		}
		if err != nil {
			return fmt.Errorf("--registry-client-cert: %w", err)
		}
	}
	return nil
}

// readMaps adds mirrors: maps first, then mirrors of the hub, the environment's
// after the flags'.
func (r *registryFlags) readMaps(host func(string) *executor.Registry) error {
	maps := slices.Clone(r.maps)
	if v := os.Getenv("KANIKO_REGISTRY_MAP"); v != "" {
		maps = append(maps, v)
	}
	mirrors := slices.Clone(r.mirrors)
	if v := os.Getenv("KANIKO_REGISTRY_MIRROR"); v != "" {
		if strings.Contains(v, ";") {
			return fmt.Errorf("KANIKO_REGISTRY_MIRROR=%q names several mirrors: only one is possible", v)
		}
		mirrors = append(mirrors, v)
	}
	var mapped []*executor.Registry
	add := func(from, to string) {
		e := host(from)
		e.Mirrors = append(e.Mirrors, strings.TrimSuffix(strings.TrimPrefix(to, "https://"), "/"))
		mapped = append(mapped, e)
		if plain, ok := strings.CutPrefix(to, "http://"); ok {
			name, _, _ := strings.Cut(plain, "/")
			host(name).Insecure = true
		}
	}
	for _, list := range maps {
		for m := range strings.SplitSeq(list, ";") {
			from, to, ok := strings.Cut(m, "=")
			if !ok || from == "" || to == "" {
				return fmt.Errorf("--registry-map %q: write HOST=OTHER[/PREFIX][;HOST=OTHER]", list)
			}
			add(from, to)
		}
	}
	for _, m := range mirrors {
		add("docker.io", m)
	}
	for _, e := range mapped {
		e.Strict = r.noFallback
	}
	return nil
}

// canonicalHost is the name that an image's registry has: people write the
// hub's in several ways, and addresses with a scheme.
func canonicalHost(name string) string {
	name = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(name, "https://"), "http://"), "/")
	switch name {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	return name
}
