# The gate on registers and spills (tools/kernel_table.cmake) passes what is within budget and stops everything else.
#   cmake -DSCRIPT=tools/kernel_table.cmake -DWORK=<an empty folder> -P tests/test_kernel_table.cmake
cmake_minimum_required(VERSION 3.25)
file(MAKE_DIRECTORY "${WORK}")

# What ptxas says of one kernel `name` of f(int).
function(ptxas_says variable name architecture registers stack spilled)
  set(${variable} "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN8einfield4cuda${name}Ei' for '${architecture}'
ptxas info    : Function properties for _ZN8einfield4cuda${name}Ei
    ${stack} bytes stack frame, ${spilled} bytes spill stores, ${spilled} bytes spill loads
ptxas info    : Used ${registers} registers, used 1 barriers, 128 bytes smem
" PARENT_SCOPE)
endfunction()

# Runs the gate on `log` with `budget`; expects `expected` ("" = success) in its message.
function(expect log budget expected)
  file(WRITE "${WORK}/a.o.ptxas" "${log}")
  file(WRITE "${WORK}/budget.txt" "${budget}")
  execute_process(COMMAND ${CMAKE_COMMAND} "-DOBJECTS=${WORK}/a.o;${WORK}/host.o" "-DBUDGET=${WORK}/budget.txt"
                          "-DTABLE=${WORK}/kernels.md" -P "${SCRIPT}"
                  RESULT_VARIABLE status OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(expected STREQUAL "" AND NOT status EQUAL 0)
    message(SEND_ERROR "expected success, got: ${said}")
  elseif(NOT expected STREQUAL "")
    string(REGEX REPLACE "[ \n]+" " " said "${said}")
    string(FIND "${said}" "${expected}" at)
    if(status EQUAL 0 OR at EQUAL -1)
      message(SEND_ERROR "expected '${expected}', got status ${status}: ${said}")
    endif()
  endif()
endfunction()

ptxas_says(thin 4thin sm_90 40 0 0)
ptxas_says(wide 4wide sm_80 200 0 0)
ptxas_says(wide_on_hopper 4wide sm_90 210 0 0)
ptxas_says(spills 4wide sm_90 200 8 12)
ptxas_says(stack 4wide sm_100 199 8 0)
set(budget "# a comment\n40 thin\n210 wide\n")

expect("${thin}${wide}${wide_on_hopper}${stack}" "${budget}" "")
file(READ "${WORK}/kernels.md" table)
foreach(row "| kernel | static shared, bytes | budget | sm_80 | sm_90 | sm_100 |" "| thin | 128 | 40 |  | 40 |  |"
            "| wide | 128 | 210 | 200 | 210 | 199 + 8 B |")
  string(FIND "${table}" "${row}" at)
  if(at EQUAL -1)
    message(SEND_ERROR "expected the row '${row}' in:\n${table}")
  endif()
endforeach()
expect("${thin}${spills}" "${budget}" "wide, sm_90: 24 bytes spilled")
expect("${thin}${spills}" "40 thin\n210+24 wide\n" "")
expect("${thin}${spills}" "40 thin\n210+23 wide\n" "wide, sm_90: 24 bytes spilled")
expect("${thin}${wide}${wide_on_hopper}" "40 thin\n205 wide\n" "wide, sm_90: 210 registers, budget 205")
expect("${thin}${wide}" "40 thin\n" "wide: no budget")
expect("${thin}" "${budget}" "wide: a budget without kernel")
expect("${thin}" "forty thin\n" "expected '<registers>[+<bytes spilled>] <beginning of the kernel's name>'")
expect("" "${budget}" "")  # PTX only

# The launcher keeps the report and passes the rest on, also through another launcher (here `cmake -E env`).
file(WRITE "${WORK}/compiler.sh" "cat '${WORK}/report' >&2; echo 'a warning' >&2")
file(WRITE "${WORK}/report" "${thin}")
execute_process(COMMAND ${CMAKE_COMMAND} -P "${SCRIPT}" -- ${CMAKE_COMMAND} -E env sh ${WORK}/compiler.sh -o ${WORK}/b.o
                RESULT_VARIABLE status OUTPUT_VARIABLE said ERROR_VARIABLE said)
file(READ "${WORK}/b.o.ptxas" report)
if(NOT status EQUAL 0 OR NOT report STREQUAL thin OR NOT said STREQUAL "a warning\n")
  message(SEND_ERROR "the launcher: expected the report in b.o.ptxas and the warning, got ${status}: ${report} / ${said}")
endif()

# The launcher passes on the compiler's failure.
execute_process(COMMAND ${CMAKE_COMMAND} -P "${SCRIPT}" -- ${CMAKE_COMMAND} -E false RESULT_VARIABLE status
                OUTPUT_QUIET ERROR_QUIET)
if(status EQUAL 0)
  message(SEND_ERROR "the launcher hid a failed compilation")
endif()
