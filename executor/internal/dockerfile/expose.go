package dockerfile

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

// expose adds ports. A word is [[ip:]host:]port[-port][/proto] after expansion,
// which may make several words of one; only port and protocol are kept.
func (r *stageRun) expose(c *instructions.ExposeCommand, step *Step) error {
	var ports []string
	for _, word := range c.Ports {
		words, err := r.g.shlex.ProcessWords(word, r.s.env)
		if err != nil {
			return err
		}
		for _, w := range words {
			p, err := exposedPorts(w)
			if err != nil {
				return err
			}
			if p.proto != strings.ToLower(p.proto) {
				r.lint.Run(&linter.RuleExposeProtoCasing, c.Location(), linter.RuleExposeProtoCasing.Format(w))
			}
			if p.mapped {
				r.lint.Run(&linter.RuleExposeInvalidFormat, c.Location(), linter.RuleExposeInvalidFormat.Format(w))
			}
			for n := p.first; n <= p.last; n++ {
				ports = append(ports, strconv.Itoa(n)+"/"+strings.ToLower(p.proto))
			}
		}
	}
	config := &r.s.image.Config
	if config.ExposedPorts == nil {
		config.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range ports {
		config.ExposedPorts[p] = struct{}{}
	}
	step.CreatedBy = fmt.Sprintf("EXPOSE %v", ports)
	return nil
}

type portRange struct {
	first, last int
	proto       string // as written
	mapped      bool   // has a host part, which does nothing
}

func exposedPorts(word string) (portRange, error) {
	parts := strings.Split(word, ":")
	n := len(parts)
	var ip, host string
	if n >= 2 {
		host = parts[n-2]
	}
	if n >= 3 {
		ip = strings.Join(parts[:n-2], ":")
	}
	port, proto, _ := strings.Cut(parts[n-1], "/")
	switch strings.ToLower(proto) {
	case "":
		proto = "tcp"
	case "tcp", "udp", "sctp":
	default:
		return portRange{}, fmt.Errorf("invalid port: %q: invalid proto: %s", word, proto)
	}
	if port == "" {
		return portRange{}, fmt.Errorf("invalid port: %q: no port specified", word)
	}
	if strings.HasPrefix(ip, "[") {
		bare, _, err := net.SplitHostPort(ip + ":")
		if err != nil {
			return portRange{}, fmt.Errorf("invalid IP address %v: %w", ip, err)
		}
		ip = bare
	}
	if ip != "" && net.ParseIP(ip) == nil {
		return portRange{}, fmt.Errorf("invalid IP address: %s", ip)
	}
	out := portRange{proto: proto, mapped: ip != "" || host != ""}
	var err error
	if out.first, out.last, err = cutPorts(port); err != nil {
		return portRange{}, fmt.Errorf("invalid containerPort: %s", port)
	}
	if host == "" {
		return out, nil
	}
	first, last, err := cutPorts(host)
	if err != nil {
		return portRange{}, fmt.Errorf("invalid hostPort: %s", host)
	}
	if last-first != out.last-out.first && out.first != out.last {
		return portRange{}, fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", port, host)
	}
	return out, nil
}

// cutPorts reads a port or a range of them.
func cutPorts(s string) (first, last int, err error) {
	a, b, isRange := strings.Cut(s, "-")
	if first, err = portNumber(a); err != nil || !isRange || a == b {
		return first, first, err
	}
	if last, err = portNumber(b); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, errors.New("the range ends before it begins")
	}
	return first, last, nil
}

func portNumber(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 0)
	if err != nil || n < 0 || n > 65535 {
		return 0, errors.New("not a port")
	}
	return int(n), nil
}
