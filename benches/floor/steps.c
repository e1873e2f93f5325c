/*
 * Measures the kernel's time for a pod's network: the daemon's three netlink batches, sent by a program that knows every
 * interface index in advance, checks nothing and undoes nothing.
 *
 *   steps N PROGRAM     creates N namespaces. For each one, runs PROGRAM to its end, as a runtime runs the plugin, and
 *                       creates a pod's network. Prints "pair", "pod" and "host" with the median of each in microseconds,
 *                       and "whole" with the median of their sums. PROGRAM's time is not counted: it runs because other
 *                       programs use the processor's caches between two ADDs on a real node.
 *
 * Then waits for the end of its input. It runs in its own namespace, so nothing outlives it. Like the daemon's, its veth
 * pairs have one queue per end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MTU 9001
#define GATEWAY 0xa9fe0101u /* 169.254.1.1 */
#define PODS_TABLE 100
#define STRICT 1
#define CONF_RP_FILTER 8 /* IPV4_DEVCONF_RP_FILTER */

/* Several requests, sent as one datagram. */
struct batch {
	char bytes[4096];
	size_t used;
	int count;
	struct nlmsghdr *last;
};

static void die(const char *what) { perror(what); exit(1); }

static double micros(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static void *begin(struct batch *batch, int type, int flags, size_t body)
{
	struct nlmsghdr *header = (void *)(batch->bytes + batch->used);
	memset(header, 0, NLMSG_SPACE(body));
	header->nlmsg_len = NLMSG_LENGTH(body);
	header->nlmsg_type = type;
	header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	batch->last = header;
	batch->count++;
	return NLMSG_DATA(header);
}

static struct rtattr *attribute(struct batch *batch, int type, const void *value, size_t length)
{
	struct nlmsghdr *header = batch->last;
	struct rtattr *attr = (void *)((char *)header + NLMSG_ALIGN(header->nlmsg_len));
	attr->rta_type = type;
	attr->rta_len = RTA_LENGTH(length);
	if (length)
		memcpy(RTA_DATA(attr), value, length);
	header->nlmsg_len = NLMSG_ALIGN(header->nlmsg_len) + RTA_ALIGN(attr->rta_len);
	return attr;
}

static void number(struct batch *batch, int type, unsigned value) { attribute(batch, type, &value, sizeof value); }

static void close_nest(struct batch *batch, struct rtattr *nest)
{
	nest->rta_len = (char *)batch->last + NLMSG_ALIGN(batch->last->nlmsg_len) - (char *)nest;
}

static void end(struct batch *batch)
{
	batch->used = (char *)batch->last + NLMSG_ALIGN(batch->last->nlmsg_len) - batch->bytes;
}

static int netlink(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int on = 1;
	if (fd < 0)
		die("netlink socket");
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
	return fd;
}

/* Sends one datagram and receives one acknowledgement per request. */
static void apply(int fd, struct batch *batch, const char *what)
{
	char answer[8192];
	int left = batch->count;
	if (send(fd, batch->bytes, batch->used, 0) < 0)
		die(what);
	while (left > 0) {
		int got = recv(fd, answer, sizeof answer, 0);
		if (got < 0)
			die(what);
		for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, got); h = NLMSG_NEXT(h, got)) {
			struct nlmsgerr *verdict = NLMSG_DATA(h);
			if (h->nlmsg_type != NLMSG_ERROR)
				continue;
			left--;
			if (verdict->error) {
				errno = -verdict->error;
				die(what);
			}
		}
	}
}

struct pod {
	int netns;
	int socket;
	unsigned index; /* of both ends: each namespace has its own numbers */
	unsigned address; /* network order */
	unsigned char host_mac[6], pod_mac[6];
	char name[IFNAMSIZ];
};

static void link_end(struct batch *batch, const char *name, const unsigned char *mac)
{
	attribute(batch, IFLA_IFNAME, name, strlen(name) + 1);
	number(batch, IFLA_MTU, MTU);
	attribute(batch, IFLA_ADDRESS, mac, 6);
	number(batch, IFLA_NUM_TX_QUEUES, 1);
	number(batch, IFLA_NUM_RX_QUEUES, 1);
}

static void pair(int host, struct pod *pod)
{
	struct batch batch = {0};
	struct ifinfomsg *link = begin(&batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof *link);
	struct ifinfomsg peer = {.ifi_index = pod->index};
	link->ifi_index = pod->index;
	link_end(&batch, pod->name, pod->host_mac);
	number(&batch, IFLA_GROUP, 0x6b00);
	struct rtattr *info = attribute(&batch, IFLA_LINKINFO, 0, 0);
	attribute(&batch, IFLA_INFO_KIND, "veth", 4);
	struct rtattr *data = attribute(&batch, IFLA_INFO_DATA, 0, 0);
	struct rtattr *far = attribute(&batch, VETH_INFO_PEER, &peer, sizeof peer);
	link_end(&batch, "eth0", pod->pod_mac);
	number(&batch, IFLA_NET_NS_FD, pod->netns);
	close_nest(&batch, far);
	close_nest(&batch, data);
	close_nest(&batch, info);
	end(&batch);
	apply(host, &batch, "pair");
}

static void route(struct batch *batch, unsigned dst, int bits, unsigned gateway, unsigned oif, int table)
{
	struct rtmsg *route = begin(batch, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, sizeof *route);
	route->rtm_family = AF_INET;
	route->rtm_dst_len = bits;
	route->rtm_table = table;
	route->rtm_protocol = RTPROT_STATIC;
	route->rtm_scope = gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
	route->rtm_type = RTN_UNICAST;
	if (bits)
		number(batch, RTA_DST, dst);
	if (gateway)
		number(batch, RTA_GATEWAY, gateway);
	number(batch, RTA_OIF, oif);
	end(batch);
}

static void neighbour(struct batch *batch, unsigned address, const unsigned char *mac, unsigned index)
{
	struct ndmsg *neighbour = begin(batch, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof *neighbour);
	neighbour->ndm_family = AF_INET;
	neighbour->ndm_ifindex = index;
	neighbour->ndm_state = NUD_PERMANENT;
	number(batch, NDA_DST, address);
	attribute(batch, NDA_LLADDR, mac, 6);
	end(batch);
}

static void pod_side(struct pod *pod)
{
	struct batch batch = {0};
	struct ifinfomsg *link = begin(&batch, RTM_NEWLINK, 0, sizeof *link);
	link->ifi_index = pod->index;
	link->ifi_flags = link->ifi_change = IFF_UP;
	end(&batch);
	struct ifaddrmsg *address = begin(&batch, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof *address);
	address->ifa_family = AF_INET;
	address->ifa_prefixlen = 32;
	address->ifa_index = pod->index;
	number(&batch, IFA_LOCAL, pod->address);
	number(&batch, IFA_ADDRESS, pod->address);
	end(&batch);
	route(&batch, htonl(GATEWAY), 32, 0, pod->index, RT_TABLE_MAIN);
	route(&batch, 0, 0, htonl(GATEWAY), pod->index, RT_TABLE_MAIN);
	neighbour(&batch, htonl(GATEWAY), pod->host_mac, pod->index);
	apply(pod->socket, &batch, "pod side");
}

static void host_side(int host, struct pod *pod)
{
	struct batch batch = {0};
	struct ifinfomsg *link = begin(&batch, RTM_NEWLINK, 0, sizeof *link);
	link->ifi_index = pod->index;
	struct rtattr *spec = attribute(&batch, IFLA_AF_SPEC, 0, 0);
	struct rtattr *inet = attribute(&batch, AF_INET, 0, 0);
	struct rtattr *conf = attribute(&batch, IFLA_INET_CONF, 0, 0);
	number(&batch, CONF_RP_FILTER, STRICT);
	close_nest(&batch, conf);
	close_nest(&batch, inet);
	close_nest(&batch, spec);
	end(&batch);
	link = begin(&batch, RTM_NEWLINK, 0, sizeof *link);
	link->ifi_index = pod->index;
	link->ifi_flags = link->ifi_change = IFF_UP;
	end(&batch);
	neighbour(&batch, pod->address, pod->pod_mac, pod->index);
	route(&batch, pod->address, 32, 0, pod->index, PODS_TABLE);
	apply(host, &batch, "host side");
}

static int order(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void print_median(const char *what, double *times, int count)
{
	qsort(times, count, sizeof *times, order);
	printf("%s %.1f\n", what, times[count / 2]);
}

static int namespace(void)
{
	int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("open namespace");
	return fd;
}

static void make(struct pod *pods, int count)
{
	for (int i = 0; i < count; i++) {
		struct pod *pod = &pods[i];
		if (unshare(CLONE_NEWNET))
			die("unshare");
		pod->netns = namespace();
		pod->socket = netlink();
		pod->index = 100 + i;
		pod->address = htonl(0x0a000001u + i);
		memcpy(pod->host_mac, (unsigned char[]){2, 0, 0, 0, i >> 8, i}, 6);
		memcpy(pod->pod_mac, (unsigned char[]){6, 0, 0, 0, i >> 8, i}, 6);
		snprintf(pod->name, sizeof pod->name, "eni%08x", i);
	}
}

static void run(char *program)
{
	char *arguments[] = {program, 0}, *environment[] = {0};
	pid_t child;
	int status;
	if (posix_spawn(&child, program, 0, 0, arguments, environment) || waitpid(child, &status, 0) < 0)
		die(program);
}

int main(int argc, char **argv)
{
	int count = argc > 2 ? atoi(argv[1]) : 0;
	if (count < 1 || count > 2000 || unshare(CLONE_NEWNET))
		die("steps N PROGRAM, as root");
	int home = namespace(), host = netlink();
	struct pod *pods = calloc(count, sizeof *pods);
	double *times[4];
	for (int step = 0; step < 4; step++)
		times[step] = calloc(count, sizeof **times);
	make(pods, count);
	if (setns(home, CLONE_NEWNET))
		die("setns");
	for (int i = 0; i < count; i++) {
		run(argv[2]);
		double begun = micros();
		pair(host, &pods[i]);
		double paired = micros();
		pod_side(&pods[i]);
		double inside = micros();
		host_side(host, &pods[i]);
		double done = micros();
		times[0][i] = paired - begun;
		times[1][i] = inside - paired;
		times[2][i] = done - inside;
		times[3][i] = done - begun;
	}
	const char *names[] = {"pair", "pod", "host", "whole"};
	for (int step = 0; step < 4; step++)
		print_median(names[step], times[step], count);
	fflush(stdout);
	/* The kernel needs seconds to remove the namespaces, with the lock that every ADD needs. Do not start yet. */
	while (read(0, &home, sizeof home) > 0)
		;
	return 0;
}
