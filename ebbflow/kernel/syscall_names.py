"""Names of the system calls of x86-64 by number, and which of their arguments are strings.

From the kernel's arch/x86/include/generated/uapi/asm/unistd_64.h, up to Linux 6.18; numbers are never given anew.
"""

from __future__ import annotations

from types import MappingProxyType

# Runs of numbers without a hole: the first, and the names from there on.
_RUNS = {
    0: """
        read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask
        rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore
        madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile socket
        connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen getsockname getpeername socketpair
        setsockopt getsockopt clone fork vfork execve exit wait4 kill uname semget semop semctl shmdt msgget
        msgsnd msgrcv msgctl fcntl flock fsync fdatasync truncate ftruncate getdents getcwd chdir fchdir rename
        mkdir rmdir creat link unlink symlink readlink chmod fchmod chown fchown lchown umask gettimeofday
        getrlimit getrusage sysinfo times ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid
        getppid getpgrp setsid setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid
        getpgid setfsuid setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo
        rt_sigsuspend sigaltstack utime mknod uselib personality ustat statfs fstatfs sysfs getpriority
        setpriority sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max
        sched_get_priority_min sched_rr_get_interval mlock munlock mlockall munlockall vhangup modify_ldt
        pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct settimeofday mount umount2
        swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module delete_module
        get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security gettid
        readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
        removexattr lremovexattr fremovexattr tkill time futex sched_setaffinity sched_getaffinity
        set_thread_area io_setup io_destroy io_getevents io_submit io_cancel get_thread_area lookup_dcookie
        epoll_create epoll_ctl_old epoll_wait_old remap_file_pages getdents64 set_tid_address restart_syscall
        semtimedop fadvise64 timer_create timer_settime timer_gettime timer_getoverrun timer_delete
        clock_settime clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes
        vserver mbind set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify
        mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get inotify_init
        inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat newfstatat
        unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list
        get_robust_list splice tee sync_file_range vmsplice move_pages utimensat epoll_pwait signalfd
        timerfd_create eventfd fallocate timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2
        epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open recvmmsg
        fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg
        setns getcpu process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2
        seccomp getrandom memfd_create kexec_file_load bpf execveat userfaultfd membarrier mlock2
        copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq uretprobe
        uprobe
    """,
    424: """
        pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig
        fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2
        mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret
        process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake
        futex_wait futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal
        setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr
    """,
}  # fmt: skip

NAMES = MappingProxyType(
    {first + offset: name for first, run in _RUNS.items() for offset, name in enumerate(run.split())}
)
NUMBERS = MappingProxyType({name: number for number, name in NAMES.items()})

# Places of arguments that are strings: paths, names, types. Not what may hold secrets, as the options of mount.
STRINGS = MappingProxyType({
    "access": (0,), "acct": (0,), "chdir": (0,), "chmod": (0,), "chown": (0,), "chroot": (0,), "creat": (0,),
    "delete_module": (0,), "execve": (0,), "execveat": (1,), "faccessat": (1,), "faccessat2": (1,),
    "fanotify_mark": (4,), "fchmodat": (1,), "fchmodat2": (1,), "fchownat": (1,), "fsopen": (0,), "fspick": (1,),
    "getxattr": (0, 1), "inotify_add_watch": (1,), "lchown": (0,), "link": (0, 1), "linkat": (1, 3), "lstat": (0,),
    "memfd_create": (0,), "mkdir": (0,), "mkdirat": (1,), "mknod": (0,), "mknodat": (1,), "mount": (0, 1, 2),
    "mount_setattr": (1,), "move_mount": (1, 3), "name_to_handle_at": (1,), "newfstatat": (1,), "open": (0,),
    "open_tree": (1,), "open_tree_attr": (1,), "openat": (1,), "openat2": (1,), "pivot_root": (0, 1),
    "quotactl": (1,), "readlink": (0,), "readlinkat": (1,), "removexattr": (0, 1), "rename": (0, 1),
    "renameat": (1, 3), "renameat2": (1, 3), "rmdir": (0,), "setdomainname": (0,), "sethostname": (0,),
    "setxattr": (0, 1), "stat": (0,), "statfs": (0,), "statx": (1,), "swapoff": (0,), "swapon": (0,),
    "symlink": (0, 1), "symlinkat": (0, 2), "truncate": (0,), "umount2": (0,), "unlink": (0,), "unlinkat": (1,),
})  # fmt: skip


def name_of(number: int) -> str:
    """Name of a call; its number when there is none in the table."""
    return NAMES.get(number, str(number))
