package kubernetes

import (
	"fmt"
	"strings"
)

// state is what a pod's status means to a build.
type state struct {
	runs   bool   // its process is there
	final  bool   // it will not run any more
	ok     bool   // it ended by itself, well
	memory bool   // for want of memory
	waits  string // what it waits for, or how it ended
	remedy string
}

// stateOf reads a pod's status.
func stateOf(p *pod) state {
	s := &p.Status
	ended := s.Phase == "Failed" || s.Phase == "Succeeded"
	if len(s.Containers) > 0 {
		c := &s.Containers[0].State
		switch {
		case c.Terminated != nil && s.Reason == "":
			t := c.Terminated
			return ofEnd(t.Reason, t.Message, t.ExitCode)
		case c.Running != nil && !ended && p.Metadata.Deleted == nil:
			return state{runs: true}
		case c.Waiting != nil && !ended:
			if w := ofWaiting(c.Waiting.Reason, c.Waiting.Message); w.waits != "" {
				return w
			}
		}
	}
	if ended || s.Reason == "Evicted" {
		return ofPodEnd(s)
	}
	if p.Metadata.Deleted != nil {
		return state{final: true, waits: "somebody deletes it"}
	}
	for _, c := range s.Conditions {
		if c.Type == "PodScheduled" && c.Status == "False" {
			return state{waits: "no node takes it: " + c.Message}
		}
	}
	return state{}
}

// ofPodEnd is the end of a pod that is no doing of its process.
func ofPodEnd(s *podStatus) state {
	text := strings.TrimSpace(s.Reason + ": " + s.Message)
	out := state{final: true, ok: s.Phase == "Succeeded" && s.Reason == "", waits: "it ended: " + strings.Trim(text, ": ")}
	switch s.Reason {
	case "Evicted":
		out.waits = "its node evicted it: " + s.Message
		out.remedy = "give the target resources, so that the pod is placed where there is room for it, and is not the first to go"
	case "DeadlineExceeded":
		out.waits = "it was there longer than its timeout allows"
		out.remedy = "raise the timeout of the target"
	case "OutOfcpu", "OutOfmemory", "OutOfpods":
		out.remedy = "its node filled up meanwhile; build again"
	case "NodeAffinity", "NodeShutdown", "Terminated", "NodeLost":
		out.remedy = "its node went away; build again"
	}
	return out
}

// ofEnd is the end of the container.
func ofEnd(reason, message string, code int) state {
	message = strings.TrimSpace(message)
	s := state{final: true, ok: code == 0, waits: fmt.Sprintf("it ended with exit code %d: %s", code, strings.TrimSpace(reason+" "+message))}
	switch reason {
	case "OOMKilled":
		s.ok, s.memory, s.waits = false, true, "the kernel ended it, as it wanted more memory than its limit"
		s.remedy = "raise the memory of the target's resources, or the limits of the namespace"
	case "StartError", "ContainerCannotRun", "RunContainerError":
		s.waits = "its process does not start: " + message
		s.remedy = "the image has to be kaniko-build's own executor image: runner.kubernetes.image, or --runner-image; `make images` builds it"
	}
	return s
}

// ofWaiting is a container that waits, with nothing in waits if that is as it should be.
func ofWaiting(reason, message string) state {
	const image = "name an image that the cluster can pull, with runner.kubernetes.image or --runner-image (`make images` builds it); imagePullSecrets names what it takes"
	s := state{waits: strings.TrimSuffix(strings.TrimSpace(reason+": "+message), ":"), remedy: image}
	switch reason {
	case "", "ContainerCreating", "PodInitializing":
		return state{}
	case "ErrImagePull":
		m := strings.ToLower(message)
		for _, sure := range []string{"not found", "denied", "unauthorized", "forbidden", "no match for platform"} {
			s.final = s.final || strings.Contains(m, sure)
		}
	case "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull":
		s.final = true
	case "StartError", "RunContainerError":
		return ofEnd("StartError", message, 128)
	default: // CreateContainerConfigError and the like
		s.final, s.remedy = true, ""
	}
	if s.final {
		s.waits = "its container cannot be made: " + s.waits
	}
	return s
}

// waitRemedy is what helps a pod that waited too long.
func waitRemedy(waits string) string {
	if strings.HasPrefix(waits, "no node takes it") {
		return "lower the resources of the target, or change runner.kubernetes.nodeSelector and tolerations, or raise startTimeout if nodes are still being added"
	}
	return "look at it with kubectl describe, or raise runner.kubernetes.startTimeout"
}

// creationRemedy is what helps when the API server takes no pod.
func creationRemedy(err error) string {
	m := err.Error()
	switch {
	case strings.Contains(m, "violates PodSecurity"):
		return "steps run as root of the pod's container, with a default pod's rights and no more: enforce baseline, not restricted, in this namespace, or name another one"
	case strings.Contains(m, "exceeded quota"), strings.Contains(m, "must specify limits"), strings.Contains(m, "must specify requests"):
		return "give the target resources that the namespace's quota has room for"
	case strings.Contains(m, "error looking up service account"):
		return "make the service account, or name another with runner.kubernetes.serviceAccount"
	case strings.Contains(m, "namespaces \"") && strings.Contains(m, "not found"):
		return "make the namespace, or name another with runner.kubernetes.namespace"
	}
	return rightsRemedy(err)
}

// rightsRemedy is what helps when the API server refuses this user.
func rightsRemedy(err error) string {
	if code(err) == 401 {
		return "log in to the cluster again, or name another context with runner.kubernetes.context"
	}
	if code(err) == 403 {
		return "kaniko-build doctor tells which rights are missing; examples/kubernetes/role.yaml gives them"
	}
	return ""
}
